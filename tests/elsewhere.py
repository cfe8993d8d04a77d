"""The README's lines for Ray and Spark, run as they stand there: `python tests/elsewhere.py ray|spark`.

By hand, in an environment that has laescan and Ray, or pyspark and a Java: neither is a dependency of ours.
A folder of pictures on loopback is the list, and `laescan engine` judges.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from browsing import HOST, MEDIA, Site

README = Path(__file__).parent.parent / "README.md"
PICTURES = ("london_1.jpg", "london_2.jpg", "example_inpaint.jpg")
START_S = 60


def lines_of(name: str) -> str:
    """The code between a pair of marks in the README."""
    text = README.read_text(encoding="utf-8")
    return re.search(rf"<!-- {name} -->\n```python\n(.*?)```\n<!-- /{name} -->", text, re.DOTALL)[1]


def main(name: str) -> int:
    """Run them on a list of a thousand addresses; their exit code."""
    with tempfile.TemporaryDirectory() as folder, Site().serving() as site:
        urls = [
            site.put(f"/{number}.jpg", MEDIA / PICTURES[number % len(PICTURES)], "image/jpeg") for number in range(1000)
        ]
        (Path(folder) / "urls.txt").write_text("\n".join(urls), encoding="utf-8")
        socket = str(Path(folder) / "engine")
        environ = {**os.environ, "LAESCAN_ALLOW_NETWORKS": f"{HOST}/32", "LAESCAN_ENGINE_SOCKET": socket}
        environ["OMP_WAIT_POLICY"] = "PASSIVE"
        engine = subprocess.Popen([sys.executable, "-m", "scanner.cli", "engine"], env=environ)
        try:
            deadline = time.monotonic() + START_S
            while subprocess.run(
                [sys.executable, "-m", "scanner.cli", "engine", "--status"],
                check=False,
                env=environ,
                capture_output=True,
            ).returncode:
                assert time.monotonic() < deadline, "no engine"
            return subprocess.run(
                [sys.executable, "-c", lines_of(name)], check=False, cwd=folder, env=environ
            ).returncode
        finally:
            engine.terminate()
            engine.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
