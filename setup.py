"""Builds the native layer; everything else is in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, ExecError, PlatformError

NATIVE = Path("trioq/_native")
DEBUG = os.environ.get("TRIOQ_DEBUG_BUILD") == "1"
SANITIZE = os.environ.get("TRIOQ_SANITIZE")  # for example "address,undefined"

compile_args = ["-O0", "-g"] if DEBUG else ["-O3"]
link_args: list[str] = []
if SANITIZE:
    compile_args += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"]
    link_args += [f"-fsanitize={SANITIZE}"]


class BuildExt(build_ext):
    """Says in one sentence what is missing when there is no C compiler."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except (CompileError, ExecError, PlatformError) as error:
            raise SystemExit(
                f"trioq could not build its native layer ({ext.name}): {error}. Building from source "
                "needs a C compiler and Python's headers: install them (Debian and Ubuntu: apt-get "
                "install gcc python3-dev; Fedora: dnf install gcc python3-devel; macOS: "
                "xcode-select --install), or install a prebuilt wheel."
            ) from error


def extensions() -> list[Extension]:
    """One extension per .pyx, plus the C file of the same name with _impl where there is one."""
    found = []
    for source in sorted(NATIVE.glob("*.pyx")):
        sources = [str(source)]
        implementation = source.with_name(f"{source.stem}_impl.c")
        if implementation.exists():
            sources.append(str(implementation))
        found.append(
            Extension(
                f"trioq._native.{source.stem}",
                sources,
                depends=[str(p) for p in sorted(NATIVE.glob("*.pxd"))]
                + [str(p) for p in sorted(NATIVE.glob("*.h"))],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
        )
    return found


setup(
    ext_modules=cythonize(
        extensions(),
        compiler_directives={"language_level": "3", "linetrace": DEBUG},
        annotate=DEBUG,
    ),
    cffi_modules=["trioq/_native/posix_build.py:ffibuilder"],
    cmdclass={"build_ext": BuildExt},
)
