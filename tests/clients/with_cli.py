"""What users do with the `openstack` command: identity, images, flavors, key pairs, and a server's whole life."""

import pathlib

from cli import Command, Shell
from ledger import expect, expect_equal, wait_until

# A public key of no one: its private half was never kept.
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKm1SL1ZDbHCXr1SMrV0yVEz0DvCNIhPpwdHQJMMyTvM clients-test"
USER_DATA = "#!/bin/sh\necho guest: hello from user data\n"

JSON = ("-f", "json")


def _named(rows, name, key="Name"):
    found = [row for row in rows if row[key] == name]
    expect(len(found) == 1, f"{len(found)} rows named {name} in {rows}")
    return found[0]


class WithCli:
    """The steps; each returns what later ones need."""

    def __init__(self, setting):
        self.setting = setting
        self.cloud = setting.cloud
        self.admin = Command(setting.cloud, "nova")
        self.demo = Command(setting.cloud, "nova-demo")
        self.folder = pathlib.Path(setting.cloud.state) / "clients"
        self.folder.mkdir()

    # ---- identity

    def token_issue(self):
        token = self.admin("token", "issue", *JSON)
        expect(len(token["id"]) > 20, f"a token of {len(token['id'])} characters")
        for key in ("expires", "project_id", "user_id"):
            expect(token[key], f"{key} is empty")

    def project_user_role(self):
        project = self.admin("project", "create", "--description", "of the client tests", "builders", *JSON)
        expect_equal((project["name"], project["enabled"]), ("builders", True), "project")
        user = self.admin("user", "create", "--project", "builders", "--password", "Pa55-of-builder", "builder", *JSON)
        expect_equal((user["name"], user["domain_id"]), ("builder", "default"), "user")
        self.admin("role", "add", "--project", "builders", "--user", "builder", "member")
        return project["id"]

    def token_of_new_user(self, project_id):
        """Signs in with OS_* variables instead of clouds.yaml."""
        words = {"OS_AUTH_URL": self.cloud.auth_url, "OS_USERNAME": "builder", "OS_PASSWORD": "Pa55-of-builder",
                 "OS_PROJECT_NAME": "builders", "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default"}
        builder = Command(self.cloud, None, **words)
        expect_equal(builder("token", "issue", *JSON)["project_id"], project_id, "project of the token")
        wrong = Command(self.cloud, None, **{**words, "OS_PASSWORD": "wrong"})
        text = wrong("token", "issue", fails=True)
        expect("401" in text, f"a wrong password is answered with: {text}")

    # ---- image, flavor, key pairs

    def image_create(self):
        image = self.admin("image", "create", "--public", "--disk-format", self.setting.disk_format, "--container-format", "bare",
                           "--file", str(self.setting.image), "--property", "os_distro=debian", "clients-image", *JSON)
        expect_equal(image["name"], "clients-image", "name")
        wait_until(lambda: self.admin("image", "show", image["id"], *JSON)["status"] == "active", 60, "the image gets active")
        shown = self.admin("image", "show", "clients-image", *JSON)
        expect_equal(shown["size"], self.setting.image.stat().st_size, "size")
        expect(shown["checksum"], "no checksum")
        return image["id"]

    def image_list(self):
        row = _named(self.demo("image", "list", *JSON), "clients-image")
        expect_equal(row["Status"], "active", "status")

    def flavor_create(self):
        flavor = self.admin("flavor", "create", "--ram", str(self.setting.ram_mb), "--vcpus", "1", "--disk", "1",
                            "--property", "hw:cpu_policy=shared", "clients-flavor", *JSON)
        expect_equal((flavor["ram"], flavor["vcpus"], flavor["disk"]), (self.setting.ram_mb, 1, 1), "ram, vcpus, disk")
        return flavor["id"]

    def flavor_list(self):
        row = _named(self.demo("flavor", "list", "--long", *JSON), "clients-flavor")
        expect_equal((row["RAM"], row["VCPUs"]), (self.setting.ram_mb, 1), "RAM, VCPUs")
        expect("hw:cpu_policy" in str(row["Properties"]), f"the property is not listed: {row}")

    def flavor_create_as_member(self):
        text = self.demo("flavor", "create", "--ram", "1", "--vcpus", "1", "forbidden", fails=True)
        expect("403" in text, f"a member's flavor create is answered with: {text}")

    def keypair_generated(self):
        private = self.demo("keypair", "create", "clients-made")
        expect("PRIVATE KEY-----" in private, f"no private key was printed: {private[:80]}")

    def keypair_given(self):
        path = self.folder / "key.pub"
        path.write_text(PUBLIC_KEY + "\n")
        pair = self.demo("keypair", "create", "--public-key", str(path), "clients-key", *JSON)
        expect_equal(pair["name"], "clients-key", "name")
        names = [row["Name"] for row in self.demo("keypair", "list", *JSON)]
        expect({"clients-key", "clients-made"} <= set(names), f"key pairs listed: {names}")

    # ---- a server's life

    def server_create(self):
        data = self.folder / "user-data"
        data.write_text(USER_DATA)
        server = self.demo("server", "create", "--image", "clients-image", "--flavor", "clients-flavor", "--key-name", "clients-key",
                           "--no-network", "--use-config-drive", "--user-data", str(data), "--property", "purpose=test",
                           "--wait", "clients-server", *JSON)
        expect_equal((server["name"], server["status"]), ("clients-server", "ACTIVE"), "name, status")
        return server["id"]

    def server_show(self, server_id):
        server = self.demo("server", "show", "clients-server", *JSON)
        expect_equal((server["id"], server["status"], server["key_name"]), (server_id, "ACTIVE", "clients-key"), "id, status, key_name")
        expect_equal(server["properties"], {"purpose": "test"}, "properties")
        expect("clients-image" in str(server["image"]), f"image is {server['image']}")
        expect("clients-flavor" in str(server["flavor"]), f"flavor is {server['flavor']}")
        expect("OS-EXT-SRV-ATTR:host" not in server or not server["OS-EXT-SRV-ATTR:host"], "a member is told the host")

    def server_list(self, shell, server_id):
        row = _named(shell("server", "list", *JSON), "clients-server")
        expect_equal((row["ID"], row["Status"], row["Image"], row["Flavor"]),
                     (server_id, "ACTIVE", "clients-image", "clients-flavor"), "row")
        row = _named(shell("server", "list", "--long", *JSON), "clients-server")
        expect_equal(row["Power State"] in (1, "Running"), True, f"power state {row['Power State']}")
        expect_equal(shell("server", "list", "--status", "SHUTOFF", *JSON), [], "servers in SHUTOFF")

    def server_list_all(self, server_id):
        rows = self.admin("server", "list", "--all-projects", "--long", *JSON)
        row = _named(rows, "clients-server")
        expect_equal(row["ID"], server_id, "id")
        expect(row["Host"], "an administrator is not told the host")
        expect_equal(self.admin("server", "list", *JSON), [], "servers of the administrator's own project")

    def console(self, server_id):
        if not self.setting.boots:
            text = self.demo("console", "log", "show", "clients-server")
            expect("login:" in text, f"no login banner in the console log:\n{text}")
            return
        text = wait_until(lambda: self._banner(server_id), self.setting.boot_seconds, "the login banner", pause=1)
        expect(f"guest: metadata source=config-drive uuid={server_id}" in text, f"the config drive was not read:\n{text}")
        expect("keys=1" in text, f"the key is not in the guest:\n{text}")
        expect("guest: hello from user data" in text, f"user data did not run:\n{text}")
        expect(len(self.demo("console", "log", "show", "--lines", "2", server_id).strip().splitlines()) <= 2, "more than two lines")

    def _banner(self, server_id):
        text = self.demo("console", "log", "show", server_id)
        return text if "login:" in text else None

    def _status(self, shell, wanted, seconds):
        wait_until(lambda: shell("server", "show", "clients-server", *JSON)["status"] == wanted, seconds, f"status {wanted}")

    def stop_start(self, shell):
        shell("server", "stop", "clients-server")
        self._status(shell, "SHUTOFF", 90)
        shell("server", "start", "clients-server")
        self._status(shell, "ACTIVE", 60)

    def wrong_state(self):
        text = self.demo("server", "start", "clients-server", fails=True)
        expect("409" in text, f"starting an active server is answered with: {text}")

    def reboot_hard(self):
        self.demo("server", "reboot", "--hard", "--wait", "clients-server")
        expect_equal(self.demo("server", "show", "clients-server", *JSON)["status"], "ACTIVE", "status")

    def rename(self, shell):
        shell("server", "set", "--name", "clients-renamed", "clients-server")
        expect_equal(shell("server", "show", "clients-renamed", *JSON)["name"], "clients-renamed", "name")
        shell("server", "set", "--name", "clients-server", "clients-renamed")

    def events(self, shell, server_id):
        rows = shell("server", "event", "list", server_id, *JSON)
        actions = {row["Action"] for row in rows}
        expect({"create", "stop", "start", "reboot"} <= actions, f"actions listed: {actions}")
        expect(all(row["Request ID"].startswith("req-") for row in rows), f"request ids: {rows}")

    def delete(self):
        self.demo("server", "delete", "--wait", "clients-server")
        text = self.demo("server", "show", "clients-server", fails=True)
        expect("No Server found" in text or "No server" in text, f"a deleted server is shown as: {text}")

    def multi_create(self, shell, admin):
        self.demo("server", "create", "--image", "clients-image", "--flavor", "clients-flavor", "--min", "2", "--max", "2",
                  "--wait", "pair", *JSON)
        def both():
            rows = [row for row in shell("server", "list", "--name", "^pair-[12]$", *JSON)]
            return len(rows) == 2 and all(row["Status"] == "ACTIVE" for row in rows)
        wait_until(both, self.setting.boot_seconds, "both servers get active")
        hosts = {row["Host"] for row in admin("server", "list", "--all-projects", "--long", "--name", "^pair-[12]$", *JSON)}
        self.demo("server", "delete", "--wait", "pair-1", "pair-2")
        expect_equal(shell("server", "list", *JSON), [], "servers left")
        expect_equal(len(hosts), min(2, self.setting.hosts), f"number of hosts that the two servers were on ({hosts})")

    # ---- what an operator looks at

    def operator(self, shell):
        services = shell("compute", "service", "list", *JSON)
        binaries = {row["Binary"] for row in services}
        expect({"nova-compute", "nova-conductor", "nova-scheduler"} <= binaries, f"services: {binaries}")
        expect(all(row["State"] == "up" for row in services), f"not all are up: {services}")

    def hypervisors(self, shell):
        rows = shell("hypervisor", "list", *JSON)
        expect(all(row["State"] == "up" for row in rows), f"hypervisors: {rows}")
        expect_equal(len({row["Hypervisor Hostname"] for row in rows}), self.setting.hosts, f"number of hypervisors ({rows})")

    def zones(self, shell):
        rows = shell("availability", "zone", "list", "--compute", *JSON)
        expect(any(row["Zone Name"] == "nova" and row["Zone Status"] == "available" for row in rows), f"zones: {rows}")

    def limits(self, shell):
        rows = {row["Name"]: row["Value"] for row in shell("limits", "show", "--absolute", *JSON)}
        expect(any("instances" in name.lower() for name in rows), f"limits: {sorted(rows)}")

    def clean(self, admin, demo):
        demo("keypair", "delete", "clients-made", "clients-key")
        expect_equal(demo("keypair", "list", *JSON), [], "key pairs left")
        admin("image", "delete", "clients-image")
        admin("flavor", "delete", "clients-flavor")
        admin("user", "delete", "builder")
        admin("project", "delete", "builders")
        names = [row["Name"] for row in admin("project", "list", *JSON)]
        expect("builders" not in names, f"projects left: {names}")


def run(setting, ledger):
    """All of it, in the order that a user would."""
    ledger.part("openstack command (python-openstackclient)")
    steps, step = WithCli(setting), ledger.step
    admin, demo = Shell(setting.cloud, "nova"), Shell(setting.cloud, "nova-demo")
    try:
        step("token issue", steps.token_issue)
        project = step("project create, user create, role add", steps.project_user_role)
        step("token issue by the new user; refused with a wrong password", steps.token_of_new_user, project)
        step("image create --file", steps.image_create)
        step("image list", steps.image_list)
        step("flavor create --property", steps.flavor_create)
        step("flavor list --long", steps.flavor_list)
        step("flavor create as a member is forbidden", steps.flavor_create_as_member)
        step("keypair create, generated", steps.keypair_generated)
        step("keypair create --public-key, keypair list", steps.keypair_given)
        server = step("server create --wait", steps.server_create)
        step("server show", steps.server_show, server)
        step("server list, --long, --status", steps.server_list, demo, server)
        step("server list --all-projects", steps.server_list_all, server)
        step("console log show" + (" up to the login banner" if setting.boots else ""), steps.console, server)
        step("server start of an active server is a conflict", steps.wrong_state)
        step("server stop, server start", steps.stop_start, demo)
        step("server reboot --hard --wait", steps.reboot_hard)
        step("server set --name", steps.rename, demo)
        step("server event list", steps.events, demo, server)
        step("compute service list", steps.operator, admin)
        step("hypervisor list", steps.hypervisors, admin)
        step("availability zone list --compute", steps.zones, demo)
        step("limits show --absolute", steps.limits, demo)
        step("server delete --wait", steps.delete)
        step("server create --min 2 --max 2 --wait, delete both", steps.multi_create, demo, admin)
        step("keypair, image, flavor, user and project delete", steps.clean, admin, demo)
    finally:
        admin.close()
        demo.close()
