"""A nova-all of our own: its settings, start, health and end."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request


def free_port():
    """A port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cloud:
    """One nova-all process with a state folder of its own."""

    def __init__(self, binary, driver, libvirt_uri=None):
        self.binary = pathlib.Path(binary).resolve()
        self.state = pathlib.Path(tempfile.mkdtemp(prefix="nova-clients."))
        self.driver = driver
        self.conf = self.state / "nova.conf"
        self.log = self.state / "nova-all.log"
        self.port = None
        self.process = None
        lines = ["[DEFAULT]", f"state_path = {self.state}", f"compute_driver = {driver}"]
        if driver == "libvirt":
            lines += ["[libvirt]", "virt_type = qemu", f"connection_uri = {libvirt_uri}"]
        self.conf.write_text("\n".join(lines) + "\n")

    @property
    def clouds_yaml(self):
        return self.state / "clouds.yaml"

    @property
    def auth_url(self):
        return f"http://127.0.0.1:{self.port}/identity/v3"

    def environment(self, **extra):
        """The caller's environment without what would reach the clients or the service by accident."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "NOVA_"))}
        return {**kept, "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml), "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", **extra}

    def start(self, tries=3):
        """Start it and wait for /healthz. Another process may take the port between our look and its start: try again."""
        for left in reversed(range(tries)):
            self.port = free_port()
            command = [str(self.binary), "--config-file", str(self.conf), "--set", f"api.listen=127.0.0.1:{self.port}"]
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(), start_new_session=True)
            if self._wait_healthy():
                return
            if not left or "in use" not in self.log_tail():
                raise RuntimeError(f"nova-all is not healthy:\n{self.log_tail()}")

    def _wait_healthy(self, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                    if answer.status == 200:
                        return True
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.05)
        return False

    def log_tail(self, lines=15):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, seconds=70):
        """SIGTERM, and its exit code; None if it had to be killed."""
        if self.process is None or self.process.poll() is not None:
            return self.process and self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def remove(self):
        shutil.rmtree(self.state, ignore_errors=True)
