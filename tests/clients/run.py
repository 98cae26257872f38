"""Hold nova-all to the unmodified OpenStack clients: the `openstack` command, openstacksdk, python-novaclient.

    run.py --binary PATH/nova-all [--driver fake|libvirt] [--libvirt-uri URI] [--image PATH] [--keep]

Runs in the environment of dev/clients-venv. Starts nova-all on a free port with a state folder of its own, and ends it.
With libvirt the image must be one that boots and prints "login:" on its console (dev/guest-image builds one). Ends with
'clients: N passed, N failed' and exit code 0 if none failed.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

import with_cli
import with_novaclient
import with_sdk
from cloud import Cloud
from ledger import Ledger, expect, expect_equal


class Setting:
    """What the steps need to know of this run."""

    def __init__(self, arguments, cloud):
        self.cloud = cloud
        self.boots = arguments.driver == "libvirt"
        self.boot_seconds = 180 if self.boots else 30
        self.ram_mb = 192 if self.boots else 64
        # Real guests cost ten seconds of a core each: what needs no guest is tried on the fake driver alone.
        self.page_servers = 0 if self.boots else 5
        self.novaclient_versions = () if self.boots else ("2.1", with_novaclient.novaclient.API_MAX_VERSION.get_string())
        if self.boots:
            self.image, self.disk_format = pathlib.Path(arguments.image), "qcow2"
        else:
            self.image, self.disk_format = cloud.state / "small.raw", "raw"
            self.image.write_bytes(bytes(range(256)) * 4096)


def check_invariants(cloud):
    """The operator's own command must agree that nothing was left behind."""
    command = [str(cloud.binary.parent / "nova-manage"), "--config-file", str(cloud.conf), "check"]
    done = subprocess.run(command, env=cloud.environment(), capture_output=True, text=True, timeout=60, check=False)
    expect_equal(done.returncode, 0, f"exit code of nova-manage check ({done.stdout}{done.stderr})")


def check_end(cloud):
    expect_equal(cloud.stop(), 0, "exit code after SIGTERM")


def check_log(cloud):
    text = cloud.log.read_text(errors="replace")
    bad = [line for line in text.splitlines() if "panicked at" in line]
    expect(not bad, "\n".join(bad[:5]))


def drive(setting, ledger):
    for clients in (with_cli, with_sdk, with_novaclient):
        clients.run(setting, ledger)


def main():
    parser = argparse.ArgumentParser(description="Hold nova-all to the unmodified OpenStack clients.")
    parser.add_argument("--binary", required=True, help="nova-all; nova-manage is expected beside it")
    parser.add_argument("--driver", choices=("fake", "libvirt"), default="fake")
    parser.add_argument("--libvirt-uri", help="where the guests are to run")
    parser.add_argument("--image", help="a guest image that boots")
    parser.add_argument("--keep", action="store_true", help="keep the state folder")
    arguments = parser.parse_args()
    if arguments.driver == "libvirt" and not (arguments.libvirt_uri and arguments.image):
        parser.error("--driver libvirt needs --libvirt-uri and --image")
    if not os.access(arguments.binary, os.X_OK):
        parser.error(f"{arguments.binary} is not there or can't be run")

    ledger, began = Ledger(), time.monotonic()
    cloud = Cloud(arguments.binary, arguments.driver, arguments.libvirt_uri)
    try:
        ledger.part(f"nova-all, {arguments.driver} driver")
        ledger.step("starts and is healthy", cloud.start)
        if ledger.failed == 0:
            # The libraries read these from their own environment.
            os.environ.clear()
            os.environ.update(cloud.environment())
            setting = Setting(arguments, cloud)
            try:
                drive(setting, ledger)
            finally:
                ledger.part("afterwards")
                ledger.step("no server is left", lambda: with_sdk.WithSdk(setting).sweep())
            ledger.step("nova-manage check finds nothing wrong", check_invariants, cloud)
        ledger.step("ends in order on SIGTERM", check_end, cloud)
        ledger.step("nothing panicked", check_log, cloud)
        if ledger.failed:
            print(f"\nthe last lines of nova-all's log:\n{cloud.log_tail(30)}")
    finally:
        cloud.stop()
        if arguments.keep:
            print(f"\nkept: {cloud.state}")
        else:
            cloud.remove()
    print(f"\nthe {arguments.driver} driver, {time.monotonic() - began:.0f} s")
    print(f"clients: {ledger.passed} passed, {ledger.failed} failed", flush=True)
    return 1 if ledger.failed else 0


if __name__ == "__main__":
    sys.exit(main())
