"""Who answers at a server now: it may be replaced while connections are open.

A daemon listens before it has read its state, so that a load balancer is told why it is not ready
instead of finding nobody. Connections look here at each request, so the first of them are served by
the real routes as soon as there are some.
"""

from distconvd.edge.app import App


class AppSlot:
    """Holds the app that answers.

    Args:
        app: the first one.
    """

    def __init__(self, app: App) -> None:
        self.app = app
