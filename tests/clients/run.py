"""Hold a cloud to the unmodified OpenStack clients: the `openstack` command, openstacksdk, python-novaclient.

    run.py --programs FOLDER [--deployment one] [--driver fake|libvirt] [--libvirt-uri URI] [--image PATH] [--keep]
    run.py --programs FOLDER --deployment pieces --transport-url URL --database-url URL
           [--driver fake|libvirt] [--libvirt-uri URI --libvirt-uri URI] [--image PATH] [--keep]

Runs in the environment of dev/clients-venv. Starts the services on free ports with a state folder of their own, and ends
them: nova-all, or in pieces nova-api, nova-scheduler, nova-conductor and two nova-compute on a broker and a database of
which nobody else makes use. With libvirt every host needs one of its own, and the image must be one that boots and prints
"login:" on its console (dev/guest-image builds one). Ends with 'clients: N passed, N failed' and exit code 0 if none
failed.
"""

import argparse
import os
import pathlib
import sys
import time

import with_cli
import with_groups
import with_life
import with_moves
import with_networks
import with_novaclient
import with_projects
import with_sdk
import with_volumes
from cloud import AllInOne, Pieces
from ledger import Ledger, expect, expect_equal


class Setting:
    """What the steps need to know of this run."""

    def __init__(self, arguments, cloud):
        self.cloud = cloud
        self.hosts = cloud.hosts
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
    """The operator's own command must agree that nothing was left behind, on no host."""
    for files in cloud.host_settings():
        done = cloud.manage(files, "check")
        expect_equal(done.returncode, 0, f"exit code of nova-manage check ({done.stdout}{done.stderr})")
        # It looks at the guests of the host whose settings it got, and names the others.
        expect_equal(done.stdout.count("was not reached"), cloud.hosts - 1, f"number of hosts not reached ({done.stdout})")


def check_end(cloud):
    expect_equal(cloud.stop(), {service.name: 0 for service in cloud.services}, "exit codes after SIGTERM")


def check_log(cloud):
    for service in cloud.services:
        bad = [line for line in service.log_text().splitlines() if "panicked at" in line or "a mistake:" in line]
        expect(not bad, "\n".join([service.name, *bad[:5]]))


def drive(setting, ledger):
    # What needs no guest is tried on the fake driver alone. The command line costs a second a call, and does the same on any
    # database: it is tried on one process, with guests and without.
    library = (with_groups, with_networks, with_projects, with_sdk, with_life, with_moves, with_volumes, with_novaclient)
    chosen = (with_sdk,) if setting.boots else library
    for clients in (with_cli, *chosen) if setting.hosts == 1 else chosen:
        clients.run(setting, ledger)


def read_arguments():
    parser = argparse.ArgumentParser(description="Hold a cloud to the unmodified OpenStack clients.")
    parser.add_argument("--programs", required=True, help="the folder of nova-all, nova-api, nova-manage and so on")
    parser.add_argument("--deployment", choices=("one", "pieces"), default="one")
    parser.add_argument("--transport-url", help="pieces: the broker")
    parser.add_argument("--database-url", help="pieces: the database")
    parser.add_argument("--driver", choices=("fake", "libvirt"), default="fake")
    parser.add_argument("--libvirt-uri", action="append", default=[], help="where the guests are to run, once for each host")
    parser.add_argument("--image", help="a guest image that boots")
    parser.add_argument("--keep", action="store_true", help="keep the state folder")
    arguments = parser.parse_args()
    hosts = (Pieces if arguments.deployment == "pieces" else AllInOne).hosts
    if arguments.driver == "libvirt" and not (len(arguments.libvirt_uri) == hosts and arguments.image):
        parser.error(f"--driver libvirt needs --libvirt-uri for each of {hosts} hosts, and --image")
    if arguments.deployment == "pieces" and not (arguments.transport_url and arguments.database_url):
        parser.error("--deployment pieces needs --transport-url and --database-url")
    for program in ("nova-all", "nova-manage"):
        if not os.access(os.path.join(arguments.programs, program), os.X_OK):
            parser.error(f"{program} is not in {arguments.programs} or can't be run")
    return arguments


def make_cloud(arguments):
    if arguments.deployment == "pieces":
        return Pieces(arguments.programs, arguments.driver, arguments.transport_url, arguments.database_url, arguments.libvirt_uri)
    return AllInOne(arguments.programs, arguments.driver, arguments.libvirt_uri)


def main():
    arguments = read_arguments()
    ledger, began = Ledger(), time.monotonic()
    cloud = make_cloud(arguments)
    try:
        ledger.part(str(cloud))
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
            print(f"\nthe last lines of the services' logs:\n{cloud.log_tail(max(40 // max(len(cloud.services), 1), 8))}")
    finally:
        cloud.stop()
        if arguments.keep:
            print(f"\nkept: {cloud.state}")
        else:
            cloud.remove()
    print(f"\n{cloud}, {time.monotonic() - began:.0f} s")
    print(f"clients: {ledger.passed} passed, {ledger.failed} failed", flush=True)
    return 1 if ledger.failed else 0


if __name__ == "__main__":
    sys.exit(main())
