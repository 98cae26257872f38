"""Steps with their times and results, printed as they happen."""

import time
import traceback


class Wrong(Exception):
    """What a client got back is not what it must be."""


def expect(condition, text):
    """Fail the step unless the condition holds."""
    if not condition:
        raise Wrong(text)


def expect_equal(got, wanted, what):
    expect(got == wanted, f"{what} is {got!r}, not {wanted!r}")


def wait_until(check, seconds, what, pause=0.3):
    """Call `check` until it returns something true, which is returned."""
    end = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise Wrong(f"{what}: not within {seconds} s")
        time.sleep(pause)


class Ledger:
    """Runs steps, prints a line for each, counts."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def part(self, title):
        print(f"\n{title}", flush=True)

    def step(self, name, action, *args, **kwargs):
        """Run `action`; its result, or None if it failed. An argument that is None is the result of a failed step."""
        if any(argument is None for argument in args):
            self.failed += 1
            print(f"  FAILED           {name}: needs a step that failed", flush=True)
            return None
        began = time.monotonic()
        try:
            result = action(*args, **kwargs)
        except Exception as error:  # a client may raise anything; each is a failed step, and the next one is run
            self.failed += 1
            print(f"  FAILED  {time.monotonic() - began:5.1f} s  {name}", flush=True)
            reason = str(error) if isinstance(error, Wrong) else traceback.format_exc(limit=-3)
            for line in reason.strip().splitlines()[-12:]:
                print(f"          {line}", flush=True)
            return None
        self.passed += 1
        print(f"  ok      {time.monotonic() - began:5.1f} s  {name}", flush=True)
        return result
