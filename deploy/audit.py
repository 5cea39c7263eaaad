"""Looks for known vulnerabilities of installed packages, and says which it could not check.

    python -m deploy.audit SITE_PACKAGES

Exit code 1 if a package has a known vulnerability. Packages that the advisory service does not
know, or cannot be asked about, are NOT CHECKED: they do not fail the audit, and do not pass it.
"""

import json
import subprocess
import sys
from typing import Any


def main(folder: str) -> int:
    """Audit the packages in a folder; returns the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--path", folder, "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print("NOT CHECKED: the advisory service did not answer", file=sys.stderr)
        return 0
    return report(packages)


def report(packages: list[dict[str, Any]]) -> int:
    """Print the vulnerabilities and the unchecked packages; returns the exit code."""
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for fault in package["vulns"]:
            fixed = ", ".join(fault["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {fault['id']}, fixed in {fixed}")
    unchecked = [package["name"] for package in packages if "skip_reason" in package]
    if unchecked:
        print(f"NOT CHECKED: {', '.join(unchecked)}", file=sys.stderr)
    num_checked = len(packages) - len(unchecked)
    print(f"{num_checked} packages checked, {len(vulnerable)} of them with known vulnerabilities")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
