"""Compiled builds: with ACTORD_COMPILE=1 in the environment every module with a ``.pxd`` beside it becomes C.

Without it nothing happens here, and Cython is not imported: ``pyproject.toml`` says all.

1. Cython needs a tree in which the package has its name, since the folders lie flat here: ``build/cython/actord``, of
   links to the sources, with the C beside them. Frames of tracebacks are named as in there, ``actord/shards/call.py``.
2. A ``.pyx`` takes the place of the ``.py`` beside it.
3. Made anew is what has changed, or a ``.pxd`` that it takes, or this file.

``build_ext --build-lib DIR --links`` makes a tree that runs, with links to the sources beside what was compiled:
``make compiled``.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, ClassVar

from setuptools import setup

FOLDERS: dict[str, str] = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
TREE = Path("build", "cython")
CYTHON = (3, 3, 1)  # pyproject.toml names it too. With 3.3.0 workers crash; 3.1.0 takes ``isinstance(x, A | B)`` wrong
DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,  # an ``int`` of ours may be a bool, and larger than C's
    "auto_pickle": False,
    "binding": False,
    "always_allow_keywords": True,
}
FLAGS = ["-O2", "-g0", "-fno-strict-aliasing", "-fvisibility=hidden", "-w"]


def sources() -> dict[str, Path]:
    """Files by their place in the package: ``actord/shards/call.py`` is ``shards/call.py``."""
    return {
        f"{package.replace('.', '/')}/{path.relative_to(folder)}": path
        for package, folder in FOLDERS.items()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.suffix != ".so" and "__pycache__" not in path.parts
    }


def link_sources(tree: Path) -> None:
    """Links in ``tree`` to all sources, and to nothing else."""
    wanted = {tree / place: path for place, path in sources().items()}
    for old in tree.rglob("*"):
        if old.is_symlink() and old not in wanted:
            old.unlink()
    for place, path in wanted.items():
        if not place.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.path.relpath(path.resolve(), place.parent.resolve()))


def modules() -> dict[str, str]:
    """What is compiled: names of modules, and the places of their sources."""
    places = sources()
    typed = [place.removesuffix(".pxd") for place in places if place.endswith(".pxd")]
    return {base.replace("/", "."): base + (".pyx" if f"{base}.pyx" in places else ".py") for base in typed}


def compiled() -> dict[str, Any]:
    """What ``setup`` takes for a compiled build. It ends here where Cython is missing."""
    try:
        import Cython
    except ImportError:
        version = None
    else:
        version = tuple(map(int, re.findall(r"\d+", Cython.__version__)[:3]))
    if version is None or version < CYTHON:
        least = ".".join(map(str, CYTHON))
        sys.exit(
            f"ACTORD_COMPILE=1 needs Cython {least} or newer in this environment: "
            f"pip install 'cython>={least}' 'setuptools>=77', and then pip install --no-build-isolation"
        )

    from Cython.Build import cythonize
    from setuptools import Extension
    from setuptools.command.build_ext import build_ext

    class Build(build_ext):
        user_options: ClassVar = [*build_ext.user_options, ("links", None, "link the sources into the build-lib")]
        boolean_options: ClassVar = [*build_ext.boolean_options, "links"]

        def initialize_options(self) -> None:
            super().initialize_options()
            self.links = False

        def finalize_options(self) -> None:
            super().finalize_options()
            self.parallel = self.parallel or os.cpu_count()

        def build_extensions(self) -> None:
            link_sources(TREE)
            in_tree = modules()
            ours = Path(__file__).stat().st_mtime
            written = [path.stat().st_mtime for path in TREE.rglob("*.c")]
            with contextlib.chdir(TREE):
                made = cythonize(
                    [Extension(name, [place]) for name, place in in_tree.items()],
                    include_path=["."],
                    compiler_directives=DIRECTIVES,
                    nthreads=self.parallel,
                    force=self.force or any(at < ours for at in written),
                    quiet=not self.verbose,
                )
            for extension, as_c in zip(self.extensions, made, strict=True):
                extension.sources = [str(TREE / source) for source in as_c.sources]
            super().build_extensions()
            current = {Path(path).resolve() for path in self.get_outputs()}
            for old in Path(self.build_lib, "actord").rglob("*.so"):
                if old.resolve() not in current:
                    old.unlink()
            if self.links:
                link_sources(Path(self.build_lib))

    places = sources()
    return {
        "cmdclass": {"build_ext": Build},
        "ext_modules": [
            Extension(
                name,
                [str(places[place])],
                depends=["setup.py"],
                define_macros=[("CYTHON_CLINE_IN_TRACEBACK", "0")],
                extra_compile_args=FLAGS,
            )
            for name, place in modules().items()
        ],
    }


setup(**(compiled() if os.environ.get("ACTORD_COMPILE") == "1" else {}))
