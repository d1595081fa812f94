#!/usr/bin/python3
"""What failed in a log of ctest, pytest or one program, a line each: program or file, case, place and what was found there.

As a program: `failures.py NAME LOG` prints them, each behind NAME; tests/run closes with these lines, so that the end of its
output is enough to know what failed.
"""
import pathlib
import re
import sys

WIDTH = 240
CLOSING = "== what failed"
# What a program says of its own end, when no case does: sanitizers, asserts, postgres.py, Python.
ENDS = re.compile(r"SUMMARY: \w+Sanitizer|WARNING: ThreadSanitizer|ERROR: \w+Sanitizer|: runtime error: |Assertion .* failed"
                  r"|^\w+(\.\w+)*(Error|Exception)\b|\[ +SKIPPED +\]")


class Log:
    """The lines of a failed program, and what they come to."""

    def __init__(self):
        self.found = []
        self.last = ""
        self.errors = []

    def take(self, line):
        place = re.match(r"\[ +LINE +\] --- (.*?)(: error: .*)?$", line)
        error = re.match(r"\[ +ERROR +\] --- (.*)$", line)
        case = re.match(r"\[ +FAILED +\] (\w+)$", line)
        if re.match(r"\[ +RUN +\]", line):
            self.errors = []
        elif error:
            self.errors.append(error.group(1))
        elif place:
            self.errors.insert(0, pathlib.PurePath(place.group(1)).name)
        elif case:
            text = ": ".join([case.group(1), *self.errors])
            if text not in self.found and case.group(1) not in (one.split(":")[0] for one in self.found):
                self.found.append(text)
        elif ENDS.search(line):
            self.found.append(line)
        if line and not line.startswith("["):
            self.last = line

    def texts(self):
        return self.found or [self.last]


def of_program(output):
    """Of one program's own output; what it says itself of those it ran stands behind CLOSING."""
    if f"\n{CLOSING}\n" in output:
        return [line for line in output.split(f"\n{CLOSING}\n")[1].splitlines() if line.strip()]
    log = Log()
    for line in output.splitlines():
        log.take(line.strip())
    return log.texts()


def of_ctest(text):
    """Of a log of `ctest --output-on-failure`."""
    parts = []  # name, how it ended, its lines; None: of one that passed
    for line in text.splitlines():
        ended = re.match(r" *\d+/\d+ Test +#\d+: (\S+) \.*(?: +Passed|\s*\*\*\*(\S.*?) +[\d.]+ sec)", line)
        if ended:
            parts.append(ended.group(2) and (*ended.groups(), []))
        elif re.match(r"\d+% tests passed", line):
            parts.append(None)
        elif parts and parts[-1] is not None and not re.match(r" +Start +\d+: ", line):
            parts[-1][2].append(line)
    return [f"{name}: {one or how}" for name, how, lines in filter(None, parts)
            for one in of_program("\n".join(lines))]


def of_pytest(text):
    """Of a log of pytest with its short summary (-rfE)."""
    places = {}
    case = ""
    for line in text.splitlines():
        head = re.match(r"_{3,} (?:ERROR at \w+ of )?(\S+) _{3,}$", line)
        place = re.match(r"(?:tests/integration/)?(\w+\.py:\d+): (?!in )", line)
        case = head.group(1) if head else case
        if place:
            places[case] = place.group(1)
    found = re.findall(r"^(?:FAILED|ERROR) (?:tests/integration/)?(\S+?)(?:::(\S+))?(?: - (.*))?$", text, re.M)
    found = [": ".join(word for word in (file, name, places.get(name), what) if word) for file, name, what in found]
    skipped = re.findall(r"^(SKIPPED .*)$", text, re.M)
    return found + skipped or [text.rstrip().rsplit("\n", 1)[-1]]


def main():
    name, log = sys.argv[1], pathlib.Path(sys.argv[2])
    text = log.read_text(errors="replace")
    of = of_pytest if "pytest" in log.name else of_ctest if "ctest" in log.name else of_program
    for line in of(text):
        print(f"{name}: {line}"[:WIDTH])


if __name__ == "__main__":
    main()
