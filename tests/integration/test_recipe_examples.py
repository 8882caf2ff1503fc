"""What docs/recipes.md shows, with the real libraries, run as it says there."""

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from election import look, open_register
from tests.processes import Process, free_port, running
from tests.redis_server import RedisServer
from tests.waiting import DEADLINE, until

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "recipes"
BIN = Path(sys.executable).parent
POLITICS = (sys.executable, "-c", "from politics.cli import main; main()")


def leader(store: str, group: str) -> int:
    """The process that leads; 0 if nobody does."""
    with contextlib.closing(open_register(store)) as register:
        record = look(register, group)
    return record.pid if record and record.state == "held" else 0


def successor(store: str, group: str, *processes: Process) -> Process:
    """Wait until one of these processes leads, and return it."""
    return until(lambda: next((p for p in processes if p.popen.pid == leader(store, group)), None), "a leader")


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.iterdir() if path.is_file()))
def test_the_page_shows_the_files(name: str) -> None:
    """docs/recipes.md shows each file, word for word but for what its first lines say of it, and links it."""
    page, text = (ROOT / "docs/recipes.md").read_text(), (RECIPES / name).read_text()
    code = re.sub(r'\A(""".*?"""|#[^\n]*)\n+', "", text, flags=re.DOTALL)
    assert code.strip() in page
    assert f"](../examples/recipes/{name})" in page


def test_celery(tmp_path: Path, old_store: str) -> None:
    """Two beats of the app compete, and the tasks of the one that leads arrive at a worker."""
    with RedisServer() as broker, contextlib.ExitStack() as stack:
        env = {"BROKER": broker.url, "POLITICS_STORE": old_store}
        celery = (sys.executable, "-m", "celery", "--workdir", RECIPES, "-A", "celery_shop")
        beat = (*celery, "beat", "-S", "politics.integrations.celery:LeaderScheduler", "-l", "INFO")
        beats = [stack.enter_context(running(*beat, env=env)) for _ in range(2)]
        worker = stack.enter_context(running(*celery, "worker", "--pool", "solo", "-l", "WARNING", env=env))
        worker.line("tick")
        first = successor(old_store, "shop.beat", *beats)
        first.kill()
        seen = len(worker.lines)
        beats.remove(first)
        successor(old_store, "shop.beat", *beats)
        until(lambda: len(worker.lines) >= seen + 3, "more ticks")
        worker.stop()


def test_django(tmp_path: Path, old_store: str) -> None:
    """The command runs in a Django project twice, and when one process ends the other goes on."""
    subprocess.run([sys.executable, "-m", "django", "startproject", "shop", tmp_path], check=True, timeout=DEADLINE)
    commands = tmp_path / "reminders" / "management" / "commands"
    commands.mkdir(parents=True)
    for folder in (commands, commands.parent, commands.parents[1]):
        (folder / "__init__.py").touch()
    shutil.copy(RECIPES / "remind.py", commands)
    with (tmp_path / "shop" / "settings.py").open("a") as file:
        file.write(f"INSTALLED_APPS.append('reminders')\nPOLITICS_STORE = {old_store!r}\n")
    manage = (sys.executable, tmp_path / "manage.py")
    subprocess.run([*manage, "migrate", "--verbosity", "0"], check=True, timeout=DEADLINE)
    user = "from django.contrib.auth.models import User; User.objects.create_user('ada')"
    subprocess.run([*manage, "shell", "-c", user], check=True, timeout=DEADLINE, capture_output=True)
    with running(*manage, "remind") as one, running(*manage, "remind") as other:
        first = successor(old_store, "shop.reminders", one, other)
        first.line("reminding ada (fence")
        assert first.stop() == 0
        successor(old_store, "shop.reminders", one, other)


def test_rq(old_store: str) -> None:
    """Of two `rq cron` under a lease one runs; when `politics lock` is killed the other enqueues."""
    with RedisServer() as broker, contextlib.ExitStack() as stack:
        cron = (BIN / "rq", "cron", "--path", RECIPES, "--url", broker.url, "rq_cron")
        lock = (*POLITICS, "lock", "shop-cron", "--store", old_store, "--ttl", "1", "--", *cron)
        locks = [stack.enter_context(running(*lock)) for _ in range(2)]

        def jobs() -> int:
            return int(broker.client.llen("rq:queue:default"))

        until(lambda: jobs() >= 2, "jobs in the queue")
        first = successor(old_store, "shop-cron", *locks)
        first.kill()
        locks.remove(first)
        successor(old_store, "shop-cron", *locks)
        seen = jobs()
        until(lambda: jobs() >= seen + 2, "more jobs")
        worker = subprocess.run(
            [BIN / "rq", "worker", "--burst", "--path", RECIPES, "--url", broker.url, "--max-jobs", "2", "default"],
            check=True, timeout=DEADLINE, capture_output=True, text=True,
        )  # fmt: skip
        assert "Job OK" in worker.stderr + worker.stdout
        locks[0].stop()


def test_huey(tmp_path: Path, old_store: str) -> None:
    """Of two consumers under a lease one runs; when `politics lock` is killed the other does. No server is needed."""
    consumer = (BIN / "huey_consumer", "huey_shop.huey", "--workers", "1")
    env = {"HUEY_FILE": str(tmp_path / "huey.db"), "PYTHONPATH": f"{RECIPES}{os.pathsep}{ROOT}"}
    lock = (*POLITICS, "lock", "shop-huey", "--store", old_store, "--ttl", "1", "--", *consumer)
    with running(*lock, env=env) as one, running(*lock, env=env) as other:
        first = successor(old_store, "shop-huey", one, other)
        first.line("polled the bank")
        first.kill()
        second = other if first is one else one
        second.line("polled the bank")
        assert second.popen.poll() is None
        second.stop()


def entries(unit: str) -> dict[str, str]:
    """What a systemd unit sets."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))


def status(port: int, path: str) -> int:
    """What a probe is answered."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as probing:
        probing.request("GET", path)
        return probing.getresponse().status


def adapted(command: list[str]) -> list[str]:
    """A command for this machine: our `politics`, and no fixed port."""
    assert command[0].endswith("politics")
    return [*POLITICS, *command[1:]]


def test_systemd(tmp_path: Path, old_store: str) -> None:
    """The unit is one that systemd takes, and its command tells systemd that it is ready and lives."""
    unit = (RECIPES / "mailer.service").read_text()
    said = entries(unit)
    assert (said["Type"], said["WatchdogSec"]) == ("notify", "30")
    if verify := shutil.which("systemd-analyze"):
        here = tmp_path / "mailer.service"
        here.write_text(unit.replace(said["ExecStart"].split()[0], sys.executable).replace("User=mailer\n", ""))
        done = subprocess.run([verify, "verify", here], capture_output=True, text=True, timeout=DEADLINE)
        assert "mailer.service" not in done.stderr, done.stderr
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE)
        manager.bind(str(tmp_path / "notify"))
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000", "POLITICS_STORE": old_store}
        command = adapted(said["ExecStart"].replace("mailer.py", str(RECIPES / "mailer.py")).split())
        with running(*command, env=env) as process:
            process.line("sending as leader")
            assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"WATCHDOG=1"]
            assert process.stop() == 0


def test_kubernetes(old_store: str) -> None:
    """The deployment's command answers its liveness probe, whether it leads or not."""
    deployment = yaml.safe_load((RECIPES / "mailer.yaml").read_text())
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    [container] = pod["spec"]["containers"]
    [port] = container["ports"]
    probe = container["livenessProbe"]["httpGet"]
    assert probe["port"] == port["name"]
    command = adapted(container["command"])
    assert str(port["containerPort"]) in command
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            here = str(free_port())
            words = [word.replace("mailer.py", str(RECIPES / "mailer.py")).replace("9000", here) for word in command]
            environment = {entry["name"]: entry["value"] for entry in container["env"]} | {"POLITICS_STORE": old_store}
            process = stack.enter_context(running(*words, env=environment))
            process.line(f"metrics on port {here}")
            until(lambda port=here: status(int(port), probe["path"]) == 200, "a healthy pod")
