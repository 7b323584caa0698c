"""The compiled kernel: everything else about the distribution is in pyproject.toml.

MATCHING_VERIFY=1    bounds checks and the kernel's O(N) self-checks on (a separate build directory)
MATCHING_ANNOTATE=1  write Cython's annotated HTML beside the generated C
"""

import os

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

VERIFY = os.environ.get("MATCHING_VERIFY") == "1"

extensions = [
    Extension(
        "matching.book",
        ["matching/book.pyx"],
        extra_compile_args=["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter"],
        include_dirs=[numpy.get_include()],
        define_macros=[
            ("MATCHING_VERIFY", "1" if VERIFY else "0"),
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
            ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
        ],
    )
]

setup(
    ext_modules=cythonize(
        extensions,
        # cythonize keys on timestamps, so each mode has a directory of its own.
        build_dir="build/verify" if VERIFY else "build/release",
        annotate=os.environ.get("MATCHING_ANNOTATE") == "1",
        compiler_directives={
            "language_level": "3",
            "boundscheck": VERIFY,
            "wraparound": False,
            "auto_pickle": False,
            "initializedcheck": VERIFY,
            "overflowcheck": VERIFY,
        },
    )
)
