"""Print the root of a CUDA toolkit installed from Python wheels, or nothing."""

import importlib.util
import os

spec = importlib.util.find_spec("nvidia")
for folder in spec.submodule_search_locations if spec else []:
    for name in ("cu14", "cu13"):
        root = os.path.join(folder, name)
        if os.access(os.path.join(root, "bin", "nvcc"), os.X_OK):
            print(root)
            raise SystemExit
