"""`dynabert init`: what it writes trains as it is, says what it found, and never replaces anything."""

import runpy
from pathlib import Path

import pytest

from dynabert_jax.cli.train import Asked, main
from dynabert_jax.config import ConfigError, RunConfig
from dynabert_jax.data.rows import DataError
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.train.new_config import NewConfig, init_config
from dynabert_jax.train.results import Results
from dynabert_jax.train.run import train_run
from tiny_run import Materials, sentences, write_csv


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names in a configuration are relative to the folder in which it is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)
    return tmp_path


def new(materials: Materials, **changes: object) -> NewConfig:
    return init_config(**({"train_file": materials.file("train"), "model": str(materials.model)} | changes))  # type: ignore[arg-type]


def read(file: Path) -> RunConfig:
    config = runpy.run_path(str(file))["config"]
    assert isinstance(config, RunConfig)
    return config


@pytest.mark.usefixtures("shared_programs")
def test_what_is_written_trains_as_it_is(materials: Materials, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = new(materials, dev_file=materials.file("dev"), test_file=materials.file("test"))
    assert made.file == Path("my_task.py")

    def quick(asked: Asked) -> Results:
        """The first stage alone, and texts that fit the tiny model."""
        config = asked.config
        data = config.data.replace(lengths=(12,), batch_size=8, eval_batch_size=8)
        return train_run(config.replace(data=data, importance=None, width=None, depth=None))

    assert main(["my_task.py"], quick) == 0
    assert "dev" in capsys.readouterr().out
    assert (here / "runs" / "my_task" / "results.json").exists()


def test_it_says_what_it_found(materials: Materials) -> None:
    made = new(materials, out="films.py", dev_file=materials.file("dev"))
    text = made.file.read_text()
    config = read(made.file)
    assert (config.run_dir, config.data.task.name, config.model) == ("runs/films", "films", str(materials.model))
    assert config.data.dev_file == materials.file("dev")
    labels = [label for _, label in sentences(44, 0)]
    found = f"# A guess (by its name): classes and their rows: bad {labels.count('bad')}, good {labels.count('good')}\n"
    assert found in text
    assert "# A guess (the only one with longer texts): " in text
    assert [line.partition(" (")[0] for line in made.guesses] == [
        "guessed texts: text", "guessed labels: label", "guessed kind: classification",
    ]  # fmt: skip
    assert "dynabert train films.py" in str(made)


def test_nothing_is_a_guess_where_all_was_given(materials: Materials, tmp_path: Path) -> None:
    write_csv(
        tmp_path / "numbers.csv", ("text", "label"), [(text, i / 2) for i, (text, _) in enumerate(sentences(9, 0))]
    )
    made = new(
        materials, train_file="numbers.csv", text_columns=("text",), label_column="label", regression=True, out="n.py"
    )
    assert made.guesses == ()
    assert "guess (" not in made.file.read_text()
    assert "# numbers from 0 to 4, 2 on average\n" in made.file.read_text()
    task = read(made.file).data.task
    assert (task.kind, task.metrics) == ("regression", ("pearson", "spearman", "mean_absolute_error"))


AWKWARD = 'a "quoted" \\name\n\N{EURO SIGN} """'


def test_names_may_hold_anything(materials: Materials, tmp_path: Path) -> None:
    rows = [(text, label.replace("bad", 'b"""\\ad')) for text, label in sentences(44, 0)]
    write_csv(tmp_path / "it's.csv", (AWKWARD, "label"), rows)
    made = new(materials, train_file="it's.csv", out='the "task".py')
    config = read(made.file)
    assert config.data.task.text_columns == (AWKWARD,)
    assert config.data.train_file == "it's.csv"
    assert config.data.task.name == 'the "task"'


def test_a_file_is_never_overwritten(materials: Materials, here: Path) -> None:
    (here / "my_task.py").write_text("mine")
    with pytest.raises(ConfigError, match=r"my_task\.py exists, and is never overwritten; give --out another name"):
        new(materials)
    assert (here / "my_task.py").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"a configuration is a Python file; got out\.txt"):
        new(materials, out="out.txt")
    with pytest.raises(ConfigError, match=r"cannot write missing/a\.py: No such file or directory"):
        new(materials, out="missing/a.py")


def test_data_that_cannot_be_trained_on_leaves_no_file(materials: Materials, here: Path) -> None:
    write_csv(here / "bad.csv", ("text", "label"), [*sentences(20, 0), ("a film", "Good")])
    with pytest.raises(DataError, match=r"'Good' .1 rows. and 'good' .+ differ only in letter case"):
        new(materials, train_file="bad.csv")
    with pytest.raises(DataError, match=r"missing\.csv: no such file"):
        new(materials, train_file="missing.csv")
    with pytest.raises(DataError, match=r"missing\.csv: no such file"):
        new(materials, dev_file="missing.csv")
    assert sorted(path.name for path in here.iterdir()) == ["bad.csv"]


def test_a_run_folder_that_is_taken_is_found_now(materials: Materials, here: Path) -> None:
    (here / "runs" / "my_task").mkdir(parents=True)
    (here / "runs" / "my_task" / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match=r"is not a run folder: it holds thesis\.tex"):
        new(materials)
    assert not (here / "my_task.py").exists()


def test_a_table_is_not_run_as_a_configuration(materials: Materials, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([materials.file("train")]) == 2
    assert f"is a table; `dynabert init {materials.file('train')}` writes a configuration" in capsys.readouterr().err
