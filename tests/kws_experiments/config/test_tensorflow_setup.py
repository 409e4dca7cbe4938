import subprocess
import sys

import pytest

# A module in TensorFlow's place, and whether the garbage collector runs in its import and afterwards
IMPORT = """
import gc
from kws_experiments.config import tensorflow_setup
tensorflow_setup.quiet()
try:
    import tensorflow
except ValueError:
    print("failed")
print(gc.isenabled(), gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize(("last", "failed"), [("", []), ("raise ValueError", ["failed"])])
def test_no_collections_while_tensorflow_is_imported(tmp_path, last, failed):
    (tmp_path / "tensorflow.py").write_text(f"import gc\nprint(gc.isenabled())\n{last}\n")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{IMPORT}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == ["False", *failed, "True True"]
