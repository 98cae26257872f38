"""The unmodified `openstack` command, two ways: a process per command, and one that reads many from its standard input."""

import json
import pathlib
import shlex
import subprocess
import sys

from ledger import Wrong

OPENSTACK = str(pathlib.Path(sys.executable).parent / "openstack")


def _parsed(words, text):
    """A command that was asked for JSON must print JSON; of any other, the text."""
    if "json" not in words:
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise Wrong(f"openstack {shlex.join(words)} printed no JSON:\n{text}") from None


class Command:
    """A process per command, as a user types it."""

    def __init__(self, cloud, name, **environment):
        self.environment = cloud.environment(OS_CLOUD=name, **environment) if name else cloud.environment(**environment)

    def __call__(self, *words, fails=False, timeout=240):
        """What it printed, parsed if it is JSON. With `fails` it must exit non-zero, and what it said is returned."""
        done = subprocess.run([OPENSTACK, *words], env=self.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, check=False)
        if fails:
            if done.returncode == 0:
                raise Wrong(f"openstack {shlex.join(words)} should have failed and printed:\n{done.stdout}")
            return done.stdout + done.stderr
        if done.returncode != 0:
            raise Wrong(f"openstack {shlex.join(words)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return _parsed(words, done.stdout)


class Shell:
    """One process of the client for many commands: it starts slowly and signs in once."""

    END = "@@end-of-answer"

    def __init__(self, cloud, name):
        self.process = subprocess.Popen([OPENSTACK], env=cloud.environment(OS_CLOUD=name), text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __call__(self, *words):
        """What the command printed, parsed if it is JSON."""
        # The client runs "!..." in a shell: the line that it echoes ends the command's output.
        self.process.stdin.write(f"{shlex.join(words)}\n!echo {self.END}\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.strip() == self.END:
                return _parsed(words, "".join(lines))
            lines.append(line)
        raise Wrong(f"the client ended at: openstack {shlex.join(words)}\n{''.join(lines)}")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
