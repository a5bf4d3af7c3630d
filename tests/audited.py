"""The command line for the audit: a command that must succeed, and one that must be refused."""

import json

from small import call


def run(*arguments):
    """Run a command that must succeed, and return what it prints."""
    code, out, message = call(*arguments)
    assert code == 0, message
    return out


def ask(*arguments):
    """Run a command that must succeed, and return the JSON that it prints."""
    return json.loads(run(*arguments))


def refused(*arguments):
    """Run a command that must end with exit code 2, and return its message."""
    code, _, message = call(*arguments)
    assert code == 2, f"exit code {code}: {message}"
    return message


def settings(**values):
    """Return --set options: `settings(training__epochs=1)` is --set training.epochs=1."""
    found = []
    for key, value in values.items():
        found += ["--set", f"{key.replace('__', '.')}={value if isinstance(value, str) else json.dumps(value)}"]
    return found
