"""The parts of second-opinion.sh that are not shell: certificates, an application that echoes, and the attacks."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request

DEADLINE = 10
# Of refused connections, the log has ten lines a second, and of the others a sum: each of these is to have its line.
PAUSE = 0.2
ID = "spiffe://cluster.local/ns/ignite/sa/%s"
READY_PORT = 15021

# Each leaf: what it is called, who signs it, its names, its profile, and how many days it is valid.
GOOD = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth"
LEAVES = [
    ("node", "root", "URI:" + ID % "node", GOOD, 2),
    ("good", "root", "URI:" + ID % "client", GOOD, 2),
    ("foreign", "stranger", "URI:" + ID % "client", GOOD, 2),
    ("elsewhere", "root", "URI:spiffe://elsewhere.example/ns/ignite/sa/client", GOOD, 2),
    ("two", "root", "URI:%s,URI:%s" % (ID % "client", ID % "admin"), GOOD, 2),
    ("dns", "root", "DNS:client.ignite.svc", GOOD, 2),
    ("server", "root", "URI:" + ID % "client", GOOD.replace(",clientAuth", ""), 2),
    ("authority", "root", "URI:" + ID % "client", GOOD.replace("CA:FALSE", "CA:TRUE"), 2),
    ("expired", "root", "URI:" + ID % "client", GOOD, -1),
]


def openssl(*arguments, **more):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, **more)


def papers(folder):
    os.chdir(folder)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for root in ("root", "stranger"):
        extensions = ["-addext", "keyUsage=critical,keyCertSign"]
        openssl("req", "-x509", *curve, "-keyout", root + ".key", "-out", root + ".crt", "-subj", "/O=" + root,
                "-days", "2", *extensions)
    for name, root, names, profile, days in LEAVES:
        with open(name + ".ext", "w", encoding="ascii") as file:
            file.write("%s\nsubjectAltName=%s\n" % (profile, names))
        openssl("req", *curve, "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/O=leaf")
        validity = ["-days", str(days)]
        if days < 0:
            # x509 makes none that has ended, but for a day of the past to begin at: ca does.
            open("index.txt", "w", encoding="ascii").close()
            with open("ca.cnf", "w", encoding="ascii") as file:
                file.write("[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\npolicy=p\nrand_serial=yes\n"
                           "default_md=sha256\nnew_certs_dir=.\n[p]\norganizationName=optional\n")
            openssl("ca", "-batch", "-config", "ca.cnf", "-cert", root + ".crt", "-keyfile", root + ".key",
                    "-in", name + ".csr", "-out", name + ".crt", "-extfile", name + ".ext", "-notext",
                    "-startdate", "20240101000000Z", "-enddate", "20240201000000Z")
            continue
        openssl("x509", "-req", "-in", name + ".csr", "-CA", root + ".crt", "-CAkey", root + ".key",
                "-CAcreateserial", "-out", name + ".crt", "-extfile", name + ".ext", *validity)


def echo(address, port):
    def serve(connection):
        # Some clients reset it.
        with connection, contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                connection.sendall(chunk)

    listener = socket.create_server((address, int(port)))
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def ready(address):
    with urllib.request.urlopen("http://%s:%d/healthz/ready" % (address, READY_PORT), timeout=2) as answer:
        return answer.status == 200


class Attack:
    """One connection of each case, told apart by its port."""

    def __init__(self, folder, address, port):
        self.folder, self.target = folder, (address, int(port))
        self.cases, self.next_port = [], 20000

    def told(self, *case):
        self.cases.append(case)
        time.sleep(PAUSE)

    def connect(self):
        connection = socket.create_connection(self.target, DEADLINE)
        return connection, connection.getsockname()[1]

    def leaf(self, name):
        from tlslite.api import X509CertChain, parsePEMKey

        with open("%s/%s.crt" % (self.folder, name), encoding="ascii") as file:
            chain = X509CertChain()
            chain.parsePemList(file.read())
        with open("%s/%s.key" % (self.folder, name), encoding="ascii") as file:
            return chain, parsePEMKey(file.read(), private=True)

    def tlslite(self, what, reason, alert, leaf="good", highest=(3, 4), after=None):
        """A client of tlslite-ng; `after` is what it does once its handshake seems complete."""
        from tlslite.api import HandshakeSettings, TLSConnection
        from tlslite.errors import TLSAbruptCloseError, TLSRemoteAlert

        settings = HandshakeSettings()
        settings.minVersion, settings.maxVersion = (3, 0) if highest < (3, 4) else (3, 4), highest
        # It would compress what it shows, whatever the server can read.
        settings.certificate_compression_send = settings.certificate_compression_receive = []
        raw, port = self.connect()
        connection, seen = TLSConnection(raw), None
        chain, key = self.leaf(leaf) if leaf else (None, None)
        try:
            connection.handshakeClientCert(chain, key, settings=settings)
            if after:
                after(connection)
            else:
                connection.write(b"question")
            if connection.read(min=8, max=8) == b"question":
                seen = "answered"
            connection.close()
        except TLSRemoteAlert as error:
            seen = error.description
        except (TLSAbruptCloseError, OSError) as error:
            seen = type(error).__name__
        finally:
            raw.close()
        self.told("tlslite-ng", what, port, reason, alert, seen)

    def s_client(self, what, reason, alert, *arguments, leaf="good"):
        """`openssl s_client`, which says `question` and waits for it to come back."""
        self.next_port += 1
        address, port = self.target
        if leaf:
            arguments += ("-cert", "%s/%s.crt" % (self.folder, leaf), "-key", "%s/%s.key" % (self.folder, leaf))
        command = ["openssl", "s_client", "-connect", "%s:%d" % (address, port), "-bind", "10.88.0.2:%d" % self.next_port,
                   "-ign_eof", *arguments]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, timer = b"", threading.Timer(DEADLINE, client.kill)
        timer.start()
        try:
            client.stdin.write(b"question\n")
            client.stdin.flush()
            while chunk := client.stdout.read1(65536):
                output += chunk
                if b"\nquestion" in output:
                    break
        except OSError:
            output += client.stdout.read()
        finally:
            client.kill()
            client.wait()
            timer.cancel()
        number = re.search(rb"SSL alert number (\d+)", output)
        seen = int(number[1]) if number else "answered" if b"question" in output else None
        if b"Session Ticket arrived" in output:
            seen = "a ticket"
        self.told("openssl", what, self.next_port, reason, alert, seen)

    def verdict(self):
        """Prints each case and gives the number of those that are otherwise."""
        wrong = 0
        for program, what, port, reason, alert, seen in self.cases:
            logged = self.reason_of(port)
            holds = is_one_of(logged, reason) and is_one_of(seen, alert)
            wrong += not holds
            print("%s %s: %s: %s, alert %s (expected %s, %s)" %
                  ("held" if holds else "WRONG", program, what, logged, seen, reason, alert))
        print("== %d of %d" % (len(self.cases) - wrong, len(self.cases)))
        return wrong

    def reason_of(self, port):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            with open(self.folder + "/access.log", encoding="utf-8") as file:
                for line in file:
                    found = re.search(r'reason=(\w+).* src\.addr="?[0-9.]+:%d"? ' % port, line)
                    if found:
                        return found[1]
            time.sleep(0.1)
        return None


def is_one_of(seen, expected):
    return seen in (expected if isinstance(expected, tuple) else (expected,))


def many(act):
    return lambda connection: [act(connection) for _ in range(200)]


def key_update(connection):
    from tlslite.constants import KeyUpdateMessageType

    for _ in connection.send_keyupdate_request(KeyUpdateMessageType.update_not_requested):
        pass


def say(message):
    def act(connection):
        for _ in connection._sendMsg(message(), False):
            pass
    return act


def empty():
    from tlslite.messages import ApplicationData

    return ApplicationData().create(bytearray(0))


def client_hello():
    from tlslite.messages import ClientHello

    return ClientHello().create((3, 3), bytearray(32), bytearray(0), [0x1301], extensions=[])


def heartbeat():
    from tlslite.messages import Heartbeat

    return Heartbeat().create(1, bytearray(b"x"), 16)


def change_cipher_spec():
    from tlslite.messages import ChangeCipherSpec

    return ChangeCipherSpec().create()


def attack(folder, address, port):
    case = Attack(folder, address, port)
    for run in (case.tlslite, case.s_client):
        run("a good client", ("complete", "stream_cut", "peer_failed"), "answered")
        run("no certificate", "no_client_certificate", 116, leaf=None)
        run("a foreign root", "certificate_unknown_issuer", 46, leaf="foreign")
        run("another trust domain", "certificate_foreign_trust_domain", 46, leaf="elsewhere")
        run("two URIs", "certificate_several_uri_sans", 46, leaf="two")
        run("a DNS name alone", "certificate_no_uri_san", 46, leaf="dns")
        run("usage for servers", "certificate_wrong_extended_key_usage", 46, leaf="server")
        run("the CA bit", "certificate_is_ca", 46, leaf="authority")
        run("expired", "certificate_expired", 46, leaf="expired")
    for name, highest in (("tls 1.2", (3, 3)), ("tls 1.1", (3, 2)), ("tls 1.0", (3, 1)), ("ssl 3", (3, 0))):
        # Of a version, or of the signature algorithms that it does not know of.
        case.tlslite(name, "tls_version_refused", (40, 70), highest=highest)
    case.tlslite("key updates without an end", "tls_failed", 10, after=many(key_update))
    case.tlslite("empty records without an end", "tls_failed", 10, after=many(say(empty)))
    case.tlslite("both in turns without an end", "tls_failed", 10,
                 after=many(lambda connection: (key_update(connection), say(empty)(connection))))
    case.tlslite("a second hello", "tls_failed", 10, after=say(client_hello))
    case.tlslite("a heartbeat", "tls_failed", 10, after=say(heartbeat))
    case.s_client("tls 1.2", "tls_version_refused", 70, "-tls1_2")
    case.s_client("another protocol by ALPN", "handshake_failed", 120, "-alpn", "h2")
    case.s_client("a group that is not offered", "handshake_failed", 40, "-groups", "P-521")
    case.s_client("a suite that is not offered", "handshake_failed", 40, "-ciphersuites", "TLS_AES_128_CCM_SHA256")
    return case.verdict()


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    try:
        sys.exit({"papers": papers, "echo": echo, "attack": attack,
                  "ready": lambda address: 0 if ready(address) else 1}[command](*rest) or 0)
    except OSError as error:
        sys.exit("%s: %s" % (command, error))
