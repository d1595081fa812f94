"""bench/RESULTS.md: one section a row of speed, one table of reliability; each entry replaces its last one."""
import pathlib

RESULTS = pathlib.Path(__file__).resolve().parent / "RESULTS.md"
HEAD = """# Results

What `bench/run --record` and `bench/reliability --record` measured last, each with machine and date. A speed is a
ratio to a yardstick measured in the same run; the absolute figures are for orientation. What a row must reach
stands in its "target" column, and "short" is said where it is missed.
"""
COLUMNS = ["what", "ours", "yardstick", "ratio", "target", "verdict", "peak RSS", "CPU", "notes"]
RELIABILITY = "Reliability"
RELIABILITY_HEAD = ["| # | command | result | machine and date |", "|---|---|---|---|"]


def sections():
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    head, *rest = text.split("\n## ")
    return head, rest


def write(head, rest):
    parts = [part.strip("\n") + "\n" for part in [head, *rest]]
    RESULTS.write_text("\n## ".join(parts), encoding="utf-8")


def place(rest, name):
    """Index of the section of this name; None when there is none."""
    return next((i for i, one in enumerate(rest) if one.split("\n")[0] == name), None)


def cell(text):
    return " ".join(str(text).replace("|", "/").split())


def record_rows(name, made, machine, quick):
    """The section of one row of speed."""
    head, rest = sections()
    table = [name, "", machine + (" (quick run)" if quick else ""), "",
             "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    table += ["| " + " | ".join(map(cell, row.cells())) + " |" for row in made]
    at = place(rest, name)
    if at is None:
        rest.append("\n".join(table))
    else:
        rest[at] = "\n".join(table)
    write(head, rest)


def record_reliability(name, command, result, machine):
    """One line of the table of reliability; lines stand in the order of their names."""
    head, rest = sections()
    at = place(rest, RELIABILITY)
    lines = [] if at is None else [one for one in rest[at].split("\n") if one.startswith("| R")]
    lines = [one for one in lines if one.split("|")[1].strip() != name]
    lines.append(f"| {name} | `{cell(command)}` | {cell(result)} | {cell(machine)} |")
    lines.sort(key=lambda one: int("".join(c for c in one.split("|")[1] if c.isdigit())))
    section = "\n".join([RELIABILITY, "", *RELIABILITY_HEAD, *lines])
    if at is None:
        rest.append(section)
    else:
        rest[at] = section
    write(head, rest)
