"""What papermill hands to a notebook is checked before any work: names and types."""

import dataclasses

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from gcelib import check_parameters
from gcelib.study.parameters import BadParameter

OWN = """loss: str = "gce"  # the loss
seed: int = 1
lr: "float or None" = None
milestones: "list or None" = None
loss_options: dict = {}
compile: bool = False"""


def cells(injected):
    return ["", OWN, f"# Parameters\n{injected}", "check_parameters(In)"]


@pytest.mark.parametrize(
    "given",
    [
        'loss = "ce"',
        "seed = 3",
        "lr = 0.1",
        "lr = 1",
        "lr = None",
        "lr = -0.5",
        "milestones = [3, 5]",
        'loss_options = {"gamma": 3}',
        "compile = True",
        'seed = 2\nloss = "brier"',
    ],
)
def test_fitting_parameters_pass(given):
    check_parameters(cells(given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('los = "gce"', r"unknown parameter 'los': did you mean 'loss'\?"),
        ("zzz = 1", r"unknown parameter 'zzz': Known: loss, seed"),
        ('seed = "one"', r"parameter 'seed' must be int, got str 'one'"),
        ("seed = 1.5", r"parameter 'seed' must be int, got float 1\.5"),
        ("seed = True", r"parameter 'seed' must be int, got bool True"),
        (
            "lr = float('nan')",
            r"parameter 'lr' must be float or None, got float\('nan'\)",
        ),
        ("seed = None", r"parameter 'seed' must be int, got NoneType"),
        ("loss = 3", r"parameter 'loss' must be str, got int 3"),
        ("lr = True", r"parameter 'lr' must be float or None, got bool"),
        ('compile = "false"', r"parameter 'compile' must be bool, got str 'false'"),
        (
            'milestones = "[3, 5]"',
            r"parameter 'milestones' must be list or None, got str",
        ),
        ('loss_options = "gamma=3"', r"parameter 'loss_options' must be dict, got str"),
    ],
)
def test_misspelt_names_and_wrong_types_are_refused(given, message):
    with pytest.raises(BadParameter, match=message):
        check_parameters(cells(given))


@dataclasses.dataclass
class Settings:
    """A setting that the cell names, and two that it does not."""

    seed: float = 1
    nesterov: bool = False
    milestones_of_b: list[int] | None = None


def test_a_field_of_the_settings_may_be_given_though_the_cell_does_not_name_it():
    check_parameters(cells("nesterov = True\nmilestones_of_b = [3]"), Settings)
    check_parameters(cells("milestones_of_b = None"), Settings)
    with pytest.raises(BadParameter, match=r"'nesterov' must be bool, got int 1"):
        check_parameters(cells("nesterov = 1"), Settings)
    with pytest.raises(BadParameter, match=r"must be list\[int\] \| None, got str"):
        check_parameters(cells("milestones_of_b = 'x'"), Settings)
    with pytest.raises(BadParameter, match="unknown parameter 'nesterow': did you"):
        check_parameters(cells("nesterow = True"), Settings)
    with pytest.raises(BadParameter, match="'seed' must be int"):  # as the cell says
        check_parameters(cells("seed = 1.5"), Settings)


def test_the_message_names_papermill_s_other_switches():
    text = r"after -y: -y 'milestones: \[1,2\]'"
    with pytest.raises(BadParameter, match=text):
        check_parameters(cells('milestones = "[1,2]"'))
    with pytest.raises(BadParameter, match=r"got int 2024; .*-r loss 2024"):
        check_parameters(cells("loss = 2024"))


def test_what_papermill_injects_by_itself_is_nobodys_mistake():
    paths = ["INPUT_PATH", "OUTPUT_PATH", "OUTPUT_DIR_PATH"]
    lines = [f'PAPERMILL_{name} = "x"' for name in paths]
    check_parameters(cells("\n".join(["seed = 3", *lines])))


def test_a_notebook_run_by_hand_or_by_nbval_has_nothing_to_check():
    check_parameters(["", OWN, "check_parameters(In)"])
    check_parameters([""])


def test_papermill_stops_with_the_sentence(tmp_path, caplog):
    own = new_code_cell(OWN, metadata={"tags": ["parameters"]})
    rest = [
        new_code_cell("import gcelib\ngcelib.check_parameters(In)"),
        new_code_cell("print('worked')"),
    ]
    metadata = {
        "kernelspec": {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
    }
    nbformat.write(
        new_notebook(cells=[own, *rest], metadata=metadata), tmp_path / "lesson.ipynb"
    )

    def run(**parameters):
        return papermill.execute_notebook(
            tmp_path / "lesson.ipynb",
            tmp_path / "out.ipynb",
            parameters,
            kernel_name="python3",
            progress_bar=False,
        )

    assert "worked" in str(run(loss="ce", lr=1)["cells"][-1]["outputs"])
    assert "unknown" not in caplog.text  # papermill itself reads the annotations
    with pytest.raises(
        papermill.PapermillExecutionError,
        match="BadParameter: unknown parameter 'los': did you mean 'loss'",
    ) as error:
        run(los="ce")
    assert "worked" not in str(error.value)
