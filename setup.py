"""Builds the native layer (Cython and cffi); everything else is in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, ExecError, PlatformError

NATIVE = Path("trioq/_native")
DEBUG = os.environ.get("TRIOQ_DEBUG_BUILD") == "1"  # line tracing, annotated HTML, no optimizing
SANITIZE = os.environ.get("TRIOQ_SANITIZE")  # for example "address,undefined"

compile_args = ["-O0", "-g"] if DEBUG else ["-O3"]
link_args: list[str] = []
if SANITIZE:
    compile_args += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"]
    link_args += [f"-fsanitize={SANITIZE}"]


class BuildExt(build_ext):
    """Builds on every core, and says in one sentence what is missing without a C compiler."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        self._translating = Lock()

    def build_extension(self, ext: Extension) -> None:
        try:
            self._translate(ext)
            super().build_extension(ext)
        except (CompileError, ExecError, PlatformError) as error:
            raise SystemExit(
                f"trioq could not build its native layer ({ext.name}): {error}. Building from "
                "source needs a C compiler and Python's headers: install them (Debian and Ubuntu: "
                "apt-get install gcc python3-dev; Fedora: dnf install gcc python3-devel; macOS: "
                "xcode-select --install), or install a prebuilt wheel."
            ) from error

    def _translate(self, ext: Extension) -> None:
        """Have Cython write the C file: one at a time, as Cython knows no threads.

        The compilers of others run meanwhile.
        """
        if any(source.endswith(".pyx") for source in ext.sources):
            with self._translating:
                (translated,) = cythonize(
                    ext,
                    force=self.force,
                    quiet=not self.verbose,
                    compiler_directives=ext.cython_directives,
                    gdb_debug=ext.cython_gdb,
                )
            ext.sources = translated.sources


class Build(build):
    """Builds the extensions first, so that a missing compiler is seen without a long log."""

    sub_commands = sorted(build.sub_commands, key=lambda command: command[0] != "build_ext")


def extension(source: Path) -> Extension:
    """The extension of one .pyx, with the C file of the same name and _impl where there is one."""
    implementation = source.with_name(f"{source.stem}_impl.c")
    built = Extension(
        f"trioq._native.{source.stem}",
        [str(source), *([str(implementation)] if implementation.exists() else [])],
        depends=[
            str(path) for pattern in ("*.pxd", "*.h") for path in sorted(NATIVE.glob(pattern))
        ],
        define_macros=[("CYTHON_TRACE", "1")] if DEBUG else [],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    built.cython_directives = {"language_level": "3", "linetrace": DEBUG}
    built.cython_gdb = DEBUG
    return built


setup(
    ext_modules=[extension(source) for source in sorted(NATIVE.glob("*.pyx"))],
    cffi_modules=["trioq/_native/posix_build.py:ffibuilder"],
    cmdclass={"build": Build, "build_ext": BuildExt},
)
