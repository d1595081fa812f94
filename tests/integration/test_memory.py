"""Promise: when a backlog is applied, the memory that it took goes back.

A load that makes batches as large as they get leaves at most 64 MiB more than an idle server has, the
page cache of the database and the recent ids included.
"""
from black_box import drained, is_small, until

GROWTH_MB_MAX = 64


def resident_mb(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def test_a_backlog_leaves_no_memory_behind(weir):
    server = weir()
    idle = resident_mb(server)
    server.command("bench", "--url", server.url, "--key", server.key, "--connections", "8",
                   "--batch", "500", "--count", "1000")
    drained(server)
    until(lambda: is_small(resident_mb(server) - idle, GROWTH_MB_MAX), 10)
