"""Hold the app that answers requests, so that it can be replaced while connections are open.

A daemon listens before it has read its state, so that a load balancer learns why it is not ready
instead of having its connection refused. Connections read the slot at each request, so even those
opened before the daemon was ready are served by the real routes once these exist.
"""

from distconvd.edge.app import App


class AppSlot:
    """A mutable reference to the app that answers.

    Args:
        app: the first one.
    """

    def __init__(self, app: App) -> None:
        self.app = app
