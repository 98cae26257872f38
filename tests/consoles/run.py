"""Consoles in a real browser: Debian's Chromium against nova-all with a guest that boots.

    run.py --programs FOLDER --libvirt-uri URI --image PATH [--transport-url URL] [--tls FOLDER] [--shots FOLDER] [--keep]

With a broker there are two proxies in processes of their own behind one address, and one of them is killed. With certificates
(dev/console-tls; the same that libvirt was started with) there is TLS between proxies and the host. Runs in the environment of dev/clients-venv, after dev/web and `npm ci` in this folder. Ends with 'consoles: N passed, N failed'.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "clients"))

import openstack  # noqa: E402
from cloud import AllInOne, free_port  # noqa: E402
from ledger import Ledger, Wrong, expect, expect_equal, wait_until  # noqa: E402

BOOT_SECONDS = 300
# What VGA text has for backgrounds, and the pages of one server.
RED = [170, 0, 0]
GREEN = [0, 170, 0]
PAGES = ("screen", "serial", "spice")


class Front:
    """The one address of several proxies: each connection goes to the first of them that takes it."""

    def __init__(self, port, proxies):
        self.proxies = proxies
        self.taken = dict.fromkeys(proxies, 0)
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            for port in self.proxies:
                try:
                    proxy = socket.create_connection(("127.0.0.1", port), timeout=5)
                except OSError:
                    continue
                proxy.settimeout(None)
                self.taken[port] += 1
                for one, other in ((client, proxy), (proxy, client)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self.pump, args=(one, other), daemon=True).start()
                break
            else:
                client.close()

    @staticmethod
    def pump(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


class ConsoleCloud(AllInOne):
    """With its proxy at a port of its own; over a broker, two proxies in processes of their own."""

    front = None

    def __init__(self, programs, libvirt_uri, transport_url=None, tls=None):
        super().__init__(programs, "libvirt", [libvirt_uri])
        self.transport_url, self.tls = transport_url, tls

    def __str__(self):
        return f"{super().__str__()}{', two proxies on RabbitMQ' if self.transport_url else ''}{', TLS' if self.tls else ''}"

    def settings(self):
        """What everybody has to know of consoles."""
        base = f"http://127.0.0.1:{self.address}"
        vnc, serial = {"novncproxy_base_url": f"{base}/vnc_auto.html"}, {"base_url": f"{base}/serial.html"}
        if self.tls:
            ca, cert, key = (f"{self.tls}/{name}.pem" for name in ("ca-cert", "client-cert", "client-key"))
            vnc |= {"auth_schemes": "vencrypt", "vencrypt_ca_certs": ca, "vencrypt_client_cert": cert, "vencrypt_client_key": key}
            serial |= {"ca_certs": ca, "client_cert": cert, "client_key": key, "tls_client_ca": ca,
                       "tls_cert": f"{self.tls}/server-cert.pem", "tls_key": f"{self.tls}/server-key.pem"}
        spice = {"html5proxy_base_url": f"{base}/spice_auto.html", **({"ca_certs": ca} if self.tls else {})}
        return vnc, serial, spice

    def plan(self):
        self.address = free_port()
        vnc, serial, spice = self.settings()
        # Of hosts: guests have both screens, and where there are certificates nobody reaches them without.
        both = {"enabled": "true", "require_secure": "true" if self.tls else "false"}
        bus = {"transport_url": self.transport_url}
        # Over a broker its own proxy is in nobody's way.
        port = "0" if self.transport_url else self.address
        more = self.write("console.conf", DEFAULT=bus, vnc={"novncproxy_port": port, **vnc}, serial_console=serial, spice={**spice, **both})
        services = [self.service("nova-all", "nova-all", [self.conf, more], self.port, "api.listen")]
        if self.transport_url:
            ports = [free_port(), free_port()]
            for number, port in enumerate(ports, 1):
                own = self.write(f"proxy-{number}.conf", DEFAULT={**bus, "host": f"proxy-{number}", "state_path": self.state},
                                 vnc={"novncproxy_port": port, **vnc}, serial_console=serial, spice=spice)
                services.append(self.service(f"proxy-{number}", "nova-novncproxy", [own], free_port(), "health.listen"))
            if self.front:
                self.front.close()
            self.front = Front(self.address, ports)
        return services


class Browser:
    """Chromium, as browser.mjs drives it."""

    def __init__(self):
        self.process = subprocess.Popen(["node", str(HERE / "browser.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, start_new_session=True)

    def do(self, deed, page, **more):
        self.process.stdin.write(json.dumps({"do": deed, "page": page, **more}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        expect(line, "the browser ended")
        answer = json.loads(line)
        if not answer["ok"]:
            raise Wrong(f"{deed} in {page}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Consoles:
    """One server, its screen over RFB and over SPICE, and its serial port."""

    def __init__(self, cloud, arguments):
        self.cloud, self.arguments = cloud, arguments
        self.shots = pathlib.Path(arguments.shots or cloud.state)
        self.shots.mkdir(parents=True, exist_ok=True)
        self.browser = Browser()

    def boot(self):
        admin = openstack.connect(cloud="nova")
        image = admin.create_image("guest", filename=self.arguments.image, disk_format="qcow2", container_format="bare",
                                   visibility="public", wait=True, timeout=60)
        flavor = admin.compute.create_flavor(name="guest", ram=192, vcpus=1, disk=1)
        self.demo = openstack.connect(cloud="nova-demo")
        server = self.demo.compute.create_server(name="seen", image_id=image.id, flavor_id=flavor.id, networks="none",
                                                 config_drive=True)
        # What the guest is told by its config drive.
        self.password = server.admin_password
        self.server = self.demo.compute.wait_for_server(server, wait=BOOT_SECONDS)
        wait_until(lambda: "admin_pass set" in self.log() and "login:" in self.log(), BOOT_SECONDS, "the guest asks for a login", pause=1)
        return True

    def log(self):
        return self.demo.compute.get_server_console_output(self.server.id)["output"]

    def address(self, kind):
        """As `openstack console url show` prints it."""
        words = [str(pathlib.Path(sys.executable).with_name("openstack")), "--os-cloud", "nova-demo", "console", "url", "show",
                 kind, "-f", "value", "-c", "url", self.server.id]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=self.cloud.environment())
        expect_equal(done.returncode, 0, f"exit code ({done.stderr})")
        return done.stdout.strip()

    def opens(self, page, kind):
        self.last = self.address(kind)
        seen = self.browser.do("open", page, url=self.last)
        expect_equal((seen["status"], seen["state"]), (200, "connected"), f"the page ({seen})")
        expect_equal((seen["problems"], seen["foreign"]), ([], []), "what the browser complains of, and asks of others")
        return True

    def screen(self):
        return self.opens("screen", "--novnc")

    def used(self):
        """The same address, in somebody else's browser."""
        seen = self.browser.do("open", "again", url=self.last, elsewhere=True)
        expect_equal(seen["state"], "closed", f"state of the page ({seen['text']})")

    def login_prompt(self):
        """White letters on black."""
        seen = self.browser.do("colour", "screen", rgb=[170, 170, 170])
        expect(seen["width"] >= 640 and seen["share"] > 0, f"the screen is empty: {seen}")
        self.browser.do("shot", "screen", path=str(self.shots / "console-login.png"))

    def screen_login(self):
        """Typed keys log in; a command paints a pattern, and another writes into the console log."""
        self.browser.do("type", "screen", text="root\n")
        time.sleep(3)
        self.browser.do("type", "screen", text=self.password + "\n")
        time.sleep(5)
        self.browser.do("type", "screen", text="echo typed-$((6*7)) >/dev/ttyS0\n")
        wait_until(lambda: "typed-42" in self.log(), 30, "the console log has what the command wrote", pause=1)
        expect(self.browser.do("colour", "screen", rgb=RED)["share"] < 50, "the screen is red before it is painted")
        self.browser.do("type", "screen", text="printf '\\033[41m\\033[2J'\n")
        wait_until(lambda: self.browser.do("colour", "screen", rgb=RED)["share"] > 500, 20, "the guest paints its screen red")
        self.browser.do("shot", "screen", path=str(self.shots / "console-screen.png"))

    def pasted(self):
        """Text that the page types has every character of a keyboard."""
        marks = "Aa!@#%^&*()_+{}|:<>?~-=[];,./"
        told = self.browser.do("paste", "screen", text=f"echo '{marks}' >/dev/ttyS0\n")["untyped"]
        expect_equal(told, "", "what no key makes")
        wait_until(lambda: marks in self.log(), 30, "the console log has what was pasted", pause=1)
        told = self.browser.do("paste", "screen", text="\N{SNOWMAN}")["untyped"]
        expect_equal(told, "No key makes these: \N{SNOWMAN}", "what is said of others")

    def phone(self):
        for page in PAGES:
            expect(not self.browser.do("phone", page)["wide"], f"the page {page} is wider than a phone")

    def serial(self):
        return self.opens("serial", "--serial")

    def serial_login(self):
        self.browser.do("type", "serial", text="\n")
        self.shows("login:")
        self.browser.do("type", "serial", text="root\n")
        self.shows("Password: ")
        self.browser.do("type", "serial", text=self.password + "\n")
        self.shows("# ")
        self.browser.do("type", "serial", text="echo said-$((6*7))\n")
        self.shows("said-42")
        self.browser.do("shot", "serial", path=str(self.shots / "console-serial.png"))
        wait_until(lambda: "said-42" in self.log(), 20, "the console log is the same device", pause=1)

    def spice(self):
        """The same screen over SPICE: what was painted on it is there, and what is typed here is seen on both."""
        self.opens("spice", "--spice")
        wait_until(lambda: self.browser.do("colour", "spice", rgb=RED)["share"] > 500, 20, "the screen is as red over SPICE")
        self.browser.do("type", "spice", text="echo spiced-$((6*7)) >/dev/ttyS0\n")
        wait_until(lambda: "spiced-42" in self.log(), 30, "the console log has what was typed over SPICE", pause=1)
        self.browser.do("type", "spice", text="printf '\\033[42m\\033[2J'\n")
        for page in ("spice", "screen"):
            wait_until(lambda page=page: self.browser.do("colour", page, rgb=GREEN)["share"] > 500, 20, f"{page} is green")
        self.browser.do("shot", "spice", path=str(self.shots / "console-spice.png"))

    def shows(self, text):
        seen = ""

        def shown():
            nonlocal seen
            seen = self.browser.do("text", "serial")["text"]
            return text in seen
        try:
            wait_until(shown, 30, f"the terminal shows {text!r}")
        except Wrong as wrong:
            raise Wrong(f"{wrong}; it shows:\n{seen.strip()[-800:]}") from wrong

    def killed(self):
        """The proxy that has all pages dies: they go on through the other one, by themselves."""
        dies, stays = self.cloud.front.proxies
        before = self.cloud.front.taken[stays]
        expect_equal(before, 0, "connections that the second proxy has had")
        victim = next(service for service in self.cloud.services if service.name == "proxy-1")
        victim.process.kill()
        victim.process.wait()
        began = time.monotonic()
        wait_until(lambda: self.cloud.front.taken[stays] >= len(PAGES) and
                   all(self.browser.do("state", page)["state"] == "connected" for page in PAGES),
                   30, f"all pages are connected again ({dies} is gone)")
        print(f"    after {time.monotonic() - began:.1f} s", flush=True)
        self.browser.do("type", "screen", text="echo back-$((6*7)) >/dev/ttyS0\n")
        self.shows("back-42")
        self.browser.do("type", "serial", text="echo here-$((6*7))\n")
        self.shows("here-42")

    def stop(self):
        """All pages are closed within a second, and say why."""
        began = time.monotonic()
        self.demo.compute.stop_server(self.server.id)
        for page in PAGES:
            told = wait_until(lambda page=page: self.closed(page), 10, f"{page} is closed", pause=0.05)
            expect_equal(told, "The server has stopped.", f"what {page} says")
        took = time.monotonic() - began
        expect(took < 1.5, f"it took {took:.2f} s, the asking included")

    def closed(self, page):
        seen = self.browser.do("state", page)
        return seen["text"] if seen["state"] == "closed" else None

    def no_tokens(self):
        token = self.last.replace("%3D", "=").rsplit("=", 1)[1]
        # An administrator asks what it stands for; it is used up.
        shown = openstack.connect(cloud="nova").compute.get(f"/os-console-auth-tokens/{token}", microversion="2.31")
        expect_equal(shown.status_code, 404, "the look for a used token")
        for service in self.cloud.services:
            expect(token not in service.log_text(), "the log has a token")
            expect("panicked at" not in service.log_text(), "something panicked")


STEPS = ("screen", "used", "login_prompt", "screen_login", "pasted", "serial", "serial_login", "spice", "phone", "killed", "stop", "no_tokens")


def main():
    parser = argparse.ArgumentParser(description="Consoles in a real browser.")
    for name in ("programs", "libvirt-uri", "image"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--transport-url", help="a broker: two proxies then, of which one is killed")
    parser.add_argument("--tls", help="the folder of certificates that libvirt was started with")
    parser.add_argument("--shots", help="where pictures go")
    parser.add_argument("--keep", action="store_true", help="keep the state folder")
    arguments = parser.parse_args()
    ledger = Ledger()
    cloud = ConsoleCloud(arguments.programs, arguments.libvirt_uri, arguments.transport_url, arguments.tls)
    try:
        ledger.part(f"{cloud}, Chromium")
        ledger.step("starts and is healthy", cloud.start)
        if not ledger.failed:
            clean = cloud.environment()
            os.environ.clear()
            os.environ.update(clean)
            consoles = Consoles(cloud, arguments)
            try:
                if ledger.step("boot", consoles.boot):
                    for name in STEPS:
                        if name == "killed" and not arguments.transport_url:
                            continue
                        ledger.step(name.replace("_", " "), getattr(consoles, name))
                    consoles.demo.compute.delete_server(consoles.server.id)
                    ledger.step("the server is gone", wait_until,
                                lambda: consoles.demo.compute.find_server(consoles.server.id) is None, 60, "the server is gone")
            finally:
                consoles.browser.close()
        if ledger.failed:
            print(f"\nthe last lines of the log:\n{cloud.log_tail(30)}")
    finally:
        cloud.stop()
        if not arguments.keep:
            cloud.remove()
    print(f"\nconsoles: {ledger.passed} passed, {ledger.failed} failed", flush=True)
    return 1 if ledger.failed else 0


if __name__ == "__main__":
    sys.exit(main())
