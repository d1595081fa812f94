"""Real redis-servers for the tests of shared limits: one, a cluster, or a master with its sentinel, on free ports
in a temporary directory, each stopped by its process id."""
import random
import socket
import subprocess

from black_box import until


def free_port():
    """A port that is free now, and the one 10,000 above, which a cluster takes; both below those that the kernel
    gives to connections."""
    while True:
        port = random.randrange(20000, 22700)
        with socket.socket() as one, socket.socket() as bus:
            try:
                one.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port


class Redis:
    """One server. `options`: names and values as its command line takes them, without the dashes."""

    def __init__(self, folder, port=None, command="redis-server", **options):
        self.port = port or free_port()
        self.folder = folder
        self.command = command
        self.options = options
        self.process = None
        self.start()

    def words(self):
        words = [self.command]
        if self.command == "redis-sentinel":
            return [*words, str(self.folder / "sentinel.conf"), "--port", str(self.port)]
        words += ["--port", str(self.port), "--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        for name, value in self.options.items():
            words += ["--" + name.replace("_", "-"), *str(value).split(" ")]
        return words

    def start(self):
        self.process = subprocess.Popen(self.words(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        until(self.is_there)
        return self

    def is_there(self):
        assert self.process.poll() is None, "redis-server ended"
        return self.cli("PING", check=False) in ("PONG", "NOAUTH Authentication required.")

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def cli_words(self):
        if "tls_port" in self.options:
            return ["redis-cli", "-p", str(self.options["tls_port"]), "--tls", "--cacert", self.options["tls_cert_file"]]
        return ["redis-cli", "-p", str(self.port)]

    def cli(self, *words, check=True):
        done = subprocess.run([*self.cli_words(), *words], capture_output=True, text=True, timeout=30)
        if check:
            assert done.returncode == 0 and not done.stdout.startswith("ERR"), done.stdout + done.stderr
        return done.stdout.strip()

    def windows(self):
        """The count of each window, by its name."""
        names = [name for name in self.cli("KEYS", "weir:*").split("\n") if name]
        return {name: int(self.cli("HGET", name, "c") or 0) for name in names}


class Servers:
    """Makes servers in folders of their own and stops all at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def one(self, **options):
        place = self.folder / f"redis{len(self.running)}"
        place.mkdir()
        server = Redis(place, **options)
        self.running.append(server)
        return server

    def cluster(self, count=3):
        nodes = [self.one(cluster_enabled="yes", cluster_node_timeout=2000) for _ in range(count)]
        addresses = [f"127.0.0.1:{node.port}" for node in nodes]
        subprocess.run(["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"], check=True, timeout=60,
                       stdin=subprocess.DEVNULL, capture_output=True)
        for node in nodes:
            until(lambda node=node: "cluster_state:ok" in node.cli("CLUSTER", "INFO"))
        return nodes

    def sentinel(self, name, master):
        place = self.folder / f"sentinel{len(self.running)}"
        place.mkdir()
        (place / "sentinel.conf").write_text(
            f"sentinel monitor {name} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n")
        server = Redis(place, command="redis-sentinel")
        self.running.append(server)
        return server

    def stop(self):
        for server in self.running:
            server.kill()
