"""`contrib/containers`: the images' packages are locked, and the services are locked down."""

import os
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.daemon.kit import COMMAND, KEY, environment, start
from tests.operators import outside
from tests.operators.outside import CONTRIB, ROOT, program

CONTAINERS = CONTRIB / "containers"
FILES = sorted(CONTAINERS.glob("*.Containerfile"))
COMPOSE: dict[str, Any] = outside.documents(CONTAINERS / "compose.yaml")[0]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return each instruction of a Containerfile with its arguments."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in pairs]


def seconds(text: str) -> float:
    """Return a duration of a compose file or a Containerfile, all of which are in seconds."""
    return float(text.removesuffix("s"))


# -------------------------------------------------------------------------------- Containerfiles


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run(
        [program("hadolint"), str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_an_image_runs_as_an_unprivileged_user_and_has_a_health_check(path: Path) -> None:
    found = instructions(path)
    assert [rest for name, rest in found if name == "USER"] == ["10001:10001"]
    after = [name for name, _ in found][[name for name, _ in found].index("USER") :]
    assert "RUN" not in after
    assert "COPY" not in after
    (health,) = [rest for name, rest in found if name == "HEALTHCHECK"]
    assert f'"/opt/distconv/health.py", "{path.stem}"]' in health
    (entry,) = [rest for name, rest in found if name == "ENTRYPOINT"]
    assert entry.startswith('["/opt/distconv/bin/distconv')


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_only_the_locked_install_fetches_anything_from_the_network(path: Path) -> None:
    found = instructions(path)
    assert {rest.split()[0] for name, rest in found if name == "FROM"} == {"${BASE}"}
    runs = " ".join(rest for name, rest in found if name in ("RUN", "ADD"))
    assert re.findall(r"\b(?:pip|curl|wget|apt-get|apk|git)\b", runs) == []
    assert "install.py /opt/distconv" in runs


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_copied_file_exists(path: Path) -> None:
    copied = [rest.split() for name, rest in instructions(path) if name == "COPY"]
    sources = {s for words in copied if not words[0].startswith("--") for s in words[:-1]}
    assert len(sources) >= 9
    assert [source for source in sources if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_an_image_sets_only_variables_that_its_program_reads(path: Path) -> None:
    text = path.read_text()
    known = {"daemon": outside.daemon_settings, "engine": outside.engine_settings}[path.stem]()
    found = set(re.findall(r"\b(DISTCONV_\w+)=", text))
    assert found
    assert found <= known


# --------------------------------------------------------------------------------------- install


def test_the_lock_is_read_with_every_hash_and_condition() -> None:
    install = outside.load(CONTAINERS / "install.py")
    lock = install.entries(
        "# head\nOne==1.0 ; python_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "    # via x\ntwo_b==2 \\\n    --hash=sha256:cc\n"
    )
    assert set(lock) == {"one", "two-b"}
    assert lock["one"].count("--hash") == 2
    assert "python_version" in lock["one"]
    assert "via" not in lock["one"]


@pytest.mark.e2e
@pytest.mark.slow
def test_the_install_makes_an_environment_of_locked_files_only(tmp_path: Path) -> None:
    if not (ROOT / ".wheelhouse").is_dir():
        pytest.skip("there is no .wheelhouse: `make setup` fills it")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(ROOT / ".wheelhouse")}
    target = tmp_path / "distconv"
    install = str(CONTAINERS / "install.py")
    done = subprocess.run(
        [sys.executable, install, str(target)],
        env=environ, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = subprocess.run(
        [str(target / "bin" / "distconvd"), "--version"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert printed.stdout.startswith("distconvd ")
    (packages,) = target.glob("lib/python*/site-packages")
    there = {path.name.partition("-")[0] for path in packages.glob("*.dist-info")}
    assert {"distconv", "trio", "h11"} <= there
    assert there.isdisjoint({"pip", "hatchling", "httpx", "click"})


# --------------------------------------------------------------------------------------- compose


def test_compose_runs_one_daemon_and_any_number_of_engines() -> None:
    assert set(SERVICES) == {"daemon", "engine"}
    assert "deploy" not in SERVICES["daemon"]
    assert SERVICES["engine"]["deploy"]["replicas"] == 2
    # What would keep a second engine from starting.
    assert {"container_name", "ports", "hostname"}.isdisjoint(SERVICES["engine"])
    own = [v for v in SERVICES["engine"]["volumes"] if ":" not in v]
    assert own == ["/var/lib/distconv-engine"]  # anonymous, so one for each


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"privileged", "cap_add", "user", "network_mode"}.isdisjoint(service)
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert service["healthcheck"]["test"][-1] == name


def test_compose_gives_each_service_more_time_to_stop_than_it_takes() -> None:
    engine, daemon = SERVICES["engine"], SERVICES["daemon"]
    drain_s = float(engine["environment"]["DISTCONV_DRAIN_S"])
    assert seconds(engine["stop_grace_period"]) >= drain_s + 10
    from distconvd.config import Config

    assert seconds(daemon["stop_grace_period"]) >= Config().drain_s + 10


def test_compose_sets_only_known_variables_and_env_example_has_all_of_its_own() -> None:
    assert set(SERVICES["engine"]["environment"]) <= outside.engine_settings()
    assert set(SERVICES["daemon"]["environment"]) <= outside.daemon_settings()
    asked = set(re.findall(r"\$\{(\w+)", (CONTAINERS / "compose.yaml").read_text()))
    printed = re.findall(r"^(\w+)=", (CONTAINERS / "env.example").read_text(), re.MULTILINE)
    assert asked == set(printed)


def test_compose_publishes_to_this_machine_only_and_without_a_key_not_at_all() -> None:
    assert SERVICES["daemon"]["ports"] == ["${DISTCONV_PUBLISH:-127.0.0.1:8080}:8080"]
    for service in SERVICES.values():
        assert service["environment"]["DISTCONV_API_KEY"].startswith("${DISTCONV_API_KEY:?")


# ---------------------------------------------------------------------------------------- health


@pytest.mark.e2e
def test_health_reports_a_daemon_and_an_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    health = outside.load(CONTAINERS / "health.py")
    with start(tmp_path) as daemon:
        of_daemon = {"DISTCONV_PORT": str(daemon.port)}
        assert health.main(["daemon"], of_daemon) == 0
        of_engine = {
            "DISTCONV_SERVER": f"http://127.0.0.1:{daemon.port}/",
            "DISTCONV_API_KEY": KEY,
            "DISTCONV_WORK_DIR": str(tmp_path),
        }
        assert health.main(["engine"], of_engine) == 1  # it has no name yet
        (tmp_path / "engine_id").write_text("attic-1")
        assert health.main(["engine"], of_engine) == 1  # the daemon does not know it
        daemon.ask("POST", "/engines/heartbeat", {"engine_id": "attic-1", "status": "idle"})
        assert health.main(["engine"], of_engine) == 0
        named = of_engine | {"DISTCONV_ENGINE_ID": "attic-2"}
        assert health.main(["engine"], named) == 1
        assert health.main(["engine"], of_engine | {"DISTCONV_API_KEY": "wrong"}) == 1
    assert health.main(["daemon"], of_daemon) == 1  # it is gone
    assert health.main([], {}) == 2
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "ready"
    for words in ("has not started", "answers 404", "attic-1 is idle", "answers 401", "refused"):
        assert words in said


@pytest.mark.e2e
def test_health_takes_the_engines_key_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    health = outside.load(CONTAINERS / "health.py")
    key, none = tmp_path / "key", tmp_path / "none"
    key.write_text("schlüssel\n")
    with start(tmp_path, key="schlüssel") as daemon:
        environ = {
            "DISTCONV_SERVER": f"http://127.0.0.1:{daemon.port}",
            "DISTCONV_ENGINE_ID": "attic-1",
        }
        headers = {"X-API-Key": "schlüssel".encode().decode("latin-1")}
        body = {"engine_id": "attic-1", "status": "idle"}
        assert daemon.ask("POST", "/engines/heartbeat", body, headers)[0] == 200
        assert health.main(["engine"], environ | {"DISTCONV_API_KEY_FILE": str(key)}) == 0
        assert health.main(["engine"], environ | {"DISTCONV_API_KEY_FILE": str(none)}) == 1
        given = {"DISTCONV_API_KEY": "wrong", "DISTCONV_API_KEY_FILE": str(key)}
        assert health.main(["engine"], environ | given) == 1
    idle, missing, refused = capsys.readouterr().out.splitlines()
    assert idle == "attic-1 is idle"
    assert f"DISTCONV_API_KEY_FILE: {none}: No such file or directory" in missing
    assert "answers 401" in refused


@contextmanager
def daemon_with_tls(folder: Path, *flags: str) -> Generator[int]:
    """Run a daemon that speaks TLS; yield its port."""
    command = [*COMMAND, "--host", "127.0.0.1", "--port", "0", "--api-key", KEY, *flags]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " ready on https://" in line
            yield int(line.rsplit(":", 1)[1])
        finally:
            process.kill()


@pytest.mark.e2e
def test_health_reports_a_daemon_with_a_private_certificate(tmp_path: Path) -> None:
    health = outside.load(CONTAINERS / "health.py")
    issued = trustme.CA().issue_cert("dispatch.example.org")  # not as the loopback is called
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    words = ["--tls-certificate", str(tmp_path / "both.pem")]
    with daemon_with_tls(tmp_path, *words) as port:
        assert health.main(["daemon"], {"DISTCONV_PORT": str(port)}) == 0
    assert health.main(["daemon"], {"DISTCONV_PORT": str(port)}) == 1
