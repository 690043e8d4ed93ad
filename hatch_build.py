"""Compiles the C files of src/tapeout/graph/native when tapeout is installed or a wheel is made. Without a C compiler it
says so and goes on: the engine then runs its numba loops, with the same bits.
"""

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path(__file__).parent / "src" / "tapeout" / "graph" / "native"


class NativeBuildHook(BuildHookInterface):
    """Wheels and editable installs; a wheel that holds a library is of one platform, and of any Python 3."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the libraries to what is packed."""
        spec = importlib.util.spec_from_file_location("native_build", NATIVE / "build.py")
        assert spec is not None, "build.py stands there"
        assert spec.loader is not None, "it is a Python file"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        why = module.build()
        if why is not None:
            self.app.display_warning(f"tapeout: no C engine ({why}); its numba loops give the same bits, slower")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"] += [f"/src/tapeout/graph/native/{path.name}" for path in NATIVE.glob("engine-*.so")]
