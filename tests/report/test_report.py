"""The page of a run: whole in one file, drawn in a browser without an error, and safe with any name."""

import dataclasses
import html.parser
import importlib.util
import json
import math
import shlex
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynabert_jax.choose.bench import BenchSettings, bench_run
from dynabert_jax.cli import commands
from dynabert_jax.errors import MissingPackageError
from dynabert_jax.report import facts
from dynabert_jax.report.document import document, write_page
from dynabert_jax.report.facts import Facts, Latency, Score, Size
from dynabert_jax.report.pictures import pareto, write_pictures
from dynabert_jax.report.report import report_run
from dynabert_jax.runs.files import RunFolderError, sealed, unsealed
from dynabert_jax.runs.finished import read_finished
from tiny_run import Finished, any_origin

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HOSTILE = "</script><script>alert(1)</script><!-- {{facts}} 'é\u2028"


@pytest.fixture(scope="module")
def shown(finished: Finished) -> Facts:
    return facts(finished.folder)


def size(width: float, depth: float, score: float, cost: int) -> Size:
    layers = (0, 1) if depth == 1 else (0,)
    heads = tuple(tuple(range(round(4 * width))) for _ in layers)
    scores = {"dev": Score(score, 1.1), "test": Score(score - 1, 1.2)}
    return Size(f"w{width:g}_d{depth:g}", width, depth, layers, heads, (8,) * len(layers), cost, 10 * cost, scores)


# Two are on the front of every cost but w1_d1: w0.5_d1 costs more than w1_d0.5 and scores less.
SIZES = (size(1, 1, 90, 4000), size(0.5, 1, 80, 3000), size(1, 0.5, 85, 2000), size(0.5, 0.5, 70, 1000))
LATENCY = Latency("a device, batch 1, 8 tokens, float32, jax", "jax", {"w1_d1": 4.0, "w1_d0.5": 2.5, "w0.5_d0.5": 1.0})


@pytest.fixture(scope="module")
def grid(shown: Facts) -> Facts:
    """Sizes with known scores, of which one was not measured."""
    splits = {"dev": 1000, "test": 900}
    return dataclasses.replace(
        shown, run="runs/my run", sizes=SIZES, latencies=(LATENCY,), splits=splits, teacher={"dev": Score(88.75, 1.0)},
        majority={"dev": ("good", 52.5)}, warnings=(),
    )  # fmt: skip


# What the run tells


def test_facts_are_what_the_run_wrote(finished: Finished, shown: Facts) -> None:
    run = read_finished(finished.folder)
    assert shown.splits == {"dev": 21, "test": 13}
    assert [one.name for one in shown.sizes] == [sub.name for sub in run.subs]
    for one in shown.sizes:
        rows = {row.split: row for row in run.rows if row.sub == one.name}
        assert {split: score.value for split, score in one.scores.items()} == {
            split: 100 * row.score for split, row in rows.items()
        }
        share = rows["dev"].score
        assert one.scores["dev"].error == pytest.approx(100 * math.sqrt(share * (1 - share) / 21))
        assert (one.parameters, one.flops) == (rows["dev"].parameters, rows["dev"].flops)
    scores = run.folder.read_importance(any_origin(finished.config, "importance")).heads
    assert shown.importance == tuple(tuple(map(float, layer)) for layer in scores)
    assert shown.sizes[0].heads == ((0, 1, 2, 3),) * 2
    assert [curve.stage for curve in shown.curves] == ["fine_tune", "width", "depth", "final"]
    assert all(curve.loss and len(curve.dev) == 2 for curve in shown.curves)
    assert shown.origin["seed"] == "42"
    assert run.teacher is not None
    assert {split: score.value for split, score in shown.teacher.items()} == {
        row.split: 100 * row.score for row in run.teacher.rows
    }
    assert shown.majority == {one.split: (one.label, 100 * one.scores["accuracy"]) for one in run.majorities}


def test_latencies_are_those_that_bench_writes(finished: Finished, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    bench_run(run, BenchSettings(rounds=1, batches=(8,), subs=("w1_d1",)))
    measured = bench_run(run, BenchSettings(rounds=2))
    most, fewer = facts(run).latencies
    assert most.milliseconds == {row.sub: row.median_ms for row in measured.rows}
    assert most.setting.endswith("batch 1, 12 tokens, float32, jax")
    assert list(fewer.milliseconds) == ["w1_d1"]
    assert fewer.setting.endswith("batch 8, 12 tokens, float32, jax")


def test_the_command_on_the_page_is_one_that_there_is(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)

    def export_run(*call: Any, **named: Any) -> Any:
        calls.append((call, named["subs"]))
        return types.SimpleNamespace(folder=Path("w1_d1"), subs=())

    monkeypatch.setattr("dynabert_jax.export.export.export_run", export_run)
    slide(page, 1000)
    monkeypatch.setattr("sys.argv", shlex.split(text_of(page, "#command")))
    assert commands.main() == 0
    assert calls == [((Path("runs/my run"), "hf", Path("w1_d1")), ("w1_d1",))]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (None, "Latency has not been measured. Run `dynabert bench"),
        ("{", "latency.json is not a latency card, or is damaged"),
        ("[]", "is not a latency card, or is damaged"),
        ('{"model": "abc", "origins": [], "rows": []}', "is not a latency card, or is damaged"),
    ],
)
def test_a_page_without_latencies_says_why(
    finished: Finished, tmp_path: Path, text: str | None, note: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    if text is not None:
        (tmp_path / "run" / "latency.json").write_text(text)
    shown = facts(tmp_path / "run")
    assert shown.latencies == ()
    assert note in shown.latency_note
    assert (text is None) == (not caplog.records)


def test_a_run_without_curves_has_a_page(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    for name in ("training.jsonl", "evaluations.jsonl"):
        (tmp_path / "run" / name).unlink()
    shown = facts(tmp_path / "run")
    assert all(not curve.loss and not curve.dev for curve in shown.curves)
    document(shown)


def test_heads_are_not_shown_where_nobody_knows_which_are_kept(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    (tmp_path / "run" / "importance.npz").unlink()
    with pytest.raises(RunFolderError, match=r"importance\.npz is missing; restore it, or run the training command"):
        facts(tmp_path / "run")


def test_a_log_of_another_run_has_no_curves(
    finished: Finished, shown: Facts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    for name in ("training.jsonl", "evaluations.jsonl"):
        file = tmp_path / "run" / name
        own = file.read_text()
        other = [json.dumps(json.loads(line) | {"run": "another", "loss": 9.0}) + "\n" for line in own.splitlines()]
        file.write_text(own + "".join(other))
    assert facts(tmp_path / "run").curves == shown.curves
    assert caplog.text.count("has lines of another run, which the page leaves out") == 2


def test_lines_of_a_log_that_tell_nothing_are_left_out(finished: Finished, shown: Facts, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    damaged = ('{"stage": "wi', "[1]", '{"stage": "width", "step": 1}', '{"stage": [], "step": 1, "loss": 1}',
               '{"stage": "width", "step": 1, "loss": {}, "metric": "f1", "scores": {}}', "[" * 100_000,
               '{"stage": "width", "step": 10000, "loss": NaN, "metric": "f1", "scores": {"f1": NaN}}',
               '{"stage": "width", "step": 1' + 400 * "0" + ', "loss": 1, "metric": "f1", "scores": {"f1": 1}}'
    )  # fmt: skip
    for name in ("training.jsonl", "evaluations.jsonl"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write("\n".join(damaged) + "\n")
    assert facts(tmp_path / "run").curves == shown.curves


def test_results_of_unknown_origin_have_a_page(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    file = tmp_path / "run" / "results.json"
    file.write_text(sealed(unsealed(file.read_text()) | {"provenance": [1]}))
    assert facts(tmp_path / "run").origin == {}


# The document


class Parsed(html.parser.HTMLParser):
    """The scripts of a page and what it refers to."""

    def __init__(self, text: str):
        super().__init__()
        self.scripts: list[str] = []
        self.references: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attributes if name in ("src", "href", "srcset")]
        if tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def test_the_document_needs_nothing_else(shown: Facts) -> None:
    parsed = Parsed(document(shown))
    assert all(reference.startswith(("data:", "#")) for reference in parsed.references)
    assert "@import" not in document(shown)
    assert "url(" not in document(shown)


def test_any_name_is_embedded_safely(shown: Facts) -> None:
    hostile = dataclasses.replace(shown, task=HOSTILE, model=HOSTILE, run=HOSTILE, latency_note=HOSTILE)
    parsed = Parsed(document(hostile))
    assert len(parsed.scripts) == 2
    read = json.loads(parsed.scripts[0])
    assert read["task"] == read["model"] == HOSTILE
    assert "alert(1)" not in parsed.scripts[1]


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (BROWSER and DRIVER):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    if importlib.util.find_spec("selenium") is None:
        pytest.skip("needs selenium: pip install selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, grid: Facts, tmp_path: Path) -> Any:
    """The page of known sizes; it must end without a message of the browser's."""
    yield opened(browser, grid, tmp_path)
    assert browser.get_log("browser") == []


def opened(browser: Any, shown: Facts, folder: Path) -> Any:
    write_page(shown, folder / "report.html")
    browser.get((folder / "report.html").as_uri())
    return browser


def all_of(page: Any, selector: str) -> list[Any]:
    return page.find_elements("css selector", selector)


def text_of(page: Any, selector: str) -> str:
    return page.find_element("css selector", selector).text.replace("\u00a0", " ")


def slide(page: Any, value: int) -> None:
    page.execute_script(
        "const slider = document.getElementById('slider'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'))",
        value,
    )


def picked(page: Any) -> set[str]:
    """What is highlighted, wherever it is."""
    return {element.get_attribute("data-sub") for element in all_of(page, ".picked[data-sub]")}


def test_everything_is_drawn(page: Any, grid: Facts) -> None:
    assert len(all_of(page, "#fronts figure")) == 3
    assert len(all_of(page, "#fronts .point")) == 4 + 4 + 3
    for cost in ("parameters", "flops", "latency"):
        assert len(all_of(page, f"[data-cost={cost}] .on-front")) == 3
    assert [cell.text for cell in all_of(page, "#grid button")] == ["90.00", "80.00", "85.00", "70.00"]
    assert len(all_of(page, "#heads td")) == sum(map(len, grid.importance))
    assert len(all_of(page, "#training path.curve")) == 8  # loss and dev score of four stages
    assert len(all_of(page, "#table tbody tr")) == 4
    sizes = "return [...document.querySelectorAll('svg')].map((svg) => [svg.viewBox.baseVal.width, svg.clientWidth])"
    assert all(drawn == pytest.approx(shown, abs=1) for drawn, shown in page.execute_script(sizes))


def test_scores_stand_beside_the_teachers(page: Any) -> None:
    """In a line and in words, in the charts, at the pick and below the table."""
    assert len(all_of(page, ".teacher-line")) == 3
    assert {text.text for text in all_of(page, ".teacher-name")} == {"teacher 88.75"}
    charts = [chart.get_attribute("aria-label") for chart in all_of(page, "#fronts svg")]
    assert all(label.endswith("on the Pareto front; the teacher scores 88.75") for label in charts)
    words = "The teacher scores 88.75 ± 1.0 on dev. Always answering the most frequent class, good, would score 52.50."
    assert text_of(page, "#compared") == words
    slide(page, 400)
    assert "\u22123.75 against the teacher, \u22125.00 against the largest" in text_of(page, "#pick-facts")
    slide(page, 1000)
    assert "+1.25 against the teacher, the largest" in text_of(page, "#pick-facts")
    rows = [[cell.text for cell in all_of(row, "td")] for row in all_of(page, "#table tfoot tr")]
    assert rows == [
        ["teacher", "88.75 ± 1.0", *["\u2013"] * 4],  # none on test, and no costs
        ["always the most frequent class", "52.50", *["\u2013"] * 4],
    ]
    page.execute_script(
        "const split = document.getElementById('split'); split.selectedIndex = 1;"
        "split.dispatchEvent(new Event('change'))"
    )
    assert not all_of(page, ".teacher-line")  # it was not scored on test
    assert not page.find_element("css selector", "#compared").is_displayed()
    assert not page.find_element("css selector", "#teacher-legend").is_displayed()


def test_warnings_are_shown_first(browser: Any, page: Any, grid: Facts, tmp_path: Path) -> None:
    assert not page.find_element("css selector", "#warnings").is_displayed()
    opened(browser, dataclasses.replace(grid, warnings=("w1_d1 is bad", HOSTILE)), tmp_path)
    assert [one.text for one in all_of(browser, "#warnings li")] == ["w1_d1 is bad", " ".join(HOSTILE.split())]
    assert len(all_of(browser, "script")) == 2


def test_the_slider_moves_the_pick_everywhere(page: Any) -> None:
    for value, name, heads in ((0, "w0.5_d0.5", 2), (400, "w1_d0.5", 4), (900, "w1_d0.5", 4), (1000, "w1_d1", 8)):
        slide(page, value)
        assert picked(page) == {name}
        assert len(all_of(page, ".picked[data-sub]")) == 3 + 1 + 1
        assert name in text_of(page, "#command")
        assert len(all_of(page, "#heads .kept")) == heads
    assert text_of(page, "#pick-name") == "width 1 · depth 1"
    assert text_of(page, "#command") == "dynabert export 'runs/my run' --sub w1_d1 --format hf --out w1_d1"
    assert text_of(page, "#limit") == "40.0 K FLOPs"


def test_the_cost_that_is_limited_can_be_chosen(page: Any) -> None:
    slide(page, 400)
    page.find_element("css selector", "#costs [data-cost=latency]").click()
    assert text_of(page, "#limit") == "2.20 ms"
    assert picked(page) == {"w0.5_d0.5"}
    assert page.find_element("css selector", "#setting-choice").is_displayed()


def test_what_was_timed_is_what_is_exported(browser: Any, grid: Facts, tmp_path: Path) -> None:
    formats = {"jax": "stablehlo", "onnxruntime": "onnx", "onnxruntime-int8": "onnx --int8"}
    timed = tuple(
        Latency(f"a device, batch 1, 8 tokens, dtype, {name}", name, LATENCY.milliseconds) for name in formats
    )
    page = opened(browser, dataclasses.replace(grid, latencies=timed), tmp_path)
    assert "--format hf" in text_of(page, "#command")
    page.find_element("css selector", "#costs [data-cost=latency]").click()
    for i, (name, format) in enumerate(formats.items()):
        page.execute_script(
            "const setting = document.getElementById('setting'); setting.selectedIndex = arguments[0];"
            "setting.dispatchEvent(new Event('change'))",
            i,
        )
        assert f" --format {format} --out " in text_of(page, "#command")
        assert page.find_element("css selector", "#setting-note").is_displayed() == (name == "onnxruntime-int8")
    page.find_element("css selector", "#costs [data-cost=flops]").click()
    assert "--format hf" in text_of(page, "#command")
    assert not page.find_element("css selector", "#setting-note").is_displayed()


def test_a_name_covers_no_other_point(page: Any) -> None:
    around = [[x, y] for x in range(60, 141, 8) for y in range(85, 116, 6)]
    spot = page.execute_script(
        "return roomiest(100, 100, 60, arguments[0], { left: 0, right: 300, bottom: 300 })", around
    )
    assert spot["y"] == 38 or spot["y"] <= -28


def test_captions_and_charts_stand_on_lines(page: Any) -> None:
    for selector in ("#fronts figcaption", "#fronts svg"):
        tops = "return [...document.querySelectorAll(arguments[0])].map((part) => part.getBoundingClientRect().top)"
        assert len(set(page.execute_script(tops, selector))) == 1


def test_another_split_has_other_scores(page: Any) -> None:
    page.execute_script(
        "const split = document.getElementById('split'); split.selectedIndex = 1;"
        "split.dispatchEvent(new Event('change'))"
    )
    assert all_of(page, "#grid button")[0].text == "89.00"


def test_pointing_at_a_size_tells_of_it(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    for selector in ("[data-cost=flops] [data-sub='w1_d0.5']", "#grid [data-sub='w1_d0.5']"):
        element = page.find_element("css selector", selector)
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(page).move_to_element(element).perform()
        tip = text_of(page, "#tip")
        for part in ("width 1 · depth 0.5", "85.00 ± 1.1 on dev", "2.00 K parameters", "20.0 K FLOPs", "2.50 ms"):
            assert part in tip
        assert "dynabert export 'runs/my run' --sub w1_d0.5 --format hf" in tip
    ActionChains(page).move_to_element(page.find_element("css selector", "h1")).perform()
    assert not page.find_element("css selector", "#tip").is_displayed()


def test_the_keyboard_reaches_and_picks_every_point(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    point = page.find_element("css selector", "[data-cost=parameters] .point[tabindex='0']")
    page.execute_script("arguments[0].focus()", point)
    point.send_keys(Keys.ARROW_RIGHT)
    assert "width 1 · depth 0.5" in text_of(page, "#tip")
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert picked(page) == {"w1_d0.5"}
    assert text_of(page, "#pick-why") == "The size that you selected"
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT, Keys.SPACE)
    assert picked(page) == {"w0.5_d1"}


def test_light_and_dark(page: Any) -> None:
    def colour() -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    before = colour()
    page.find_element("css selector", "#theme").click()
    assert colour() != before
    page.find_element("css selector", "#theme").click()
    assert colour() == before


def test_nothing_is_wider_than_a_telephone(page: Any) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_names_are_shown_as_they_are(browser: Any, grid: Facts, tmp_path: Path) -> None:
    hostile = dataclasses.replace(
        grid, task=HOSTILE, model=HOSTILE, metric=HOSTILE, latency_note=HOSTILE, origin={HOSTILE: HOSTILE}
    )
    opened(browser, hostile, tmp_path)
    assert "<script>alert(1)</script>" in text_of(browser, "#task")
    assert len(all_of(browser, "script")) == 2
    assert browser.get_log("browser") == []


def test_a_bare_run_is_drawn(browser: Any, grid: Facts, tmp_path: Path) -> None:
    """One size, without width and depth, latencies, importance or curves."""
    one = dataclasses.replace(SIZES[0], width=None, depth=None, name="l0h4n8", scores={"dev": Score(0.0, None)})
    bare = dataclasses.replace(
        grid, sizes=(one,), latencies=(), latency_note="none", importance=(), curves=(), splits={"dev": 3}
    )
    opened(browser, bare, tmp_path)
    assert len(all_of(browser, "#fronts .point")) == 2
    assert "no common width and depth" in text_of(browser, "#grid")
    assert "no training curves" in text_of(browser, "#training")
    assert picked(browser) == {"l0h4n8"}
    assert browser.get_log("browser") == []


# Pictures and the command


def test_the_front_is_what_nothing_cheaper_equals() -> None:
    assert pareto([(3, 80), (2, 85), (1, 70), (4, 90), (4, 85), (5, 90)]) == [(1, 70), (2, 85), (4, 90)]


def test_pictures_are_drawn(grid: Facts, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = write_pictures(grid, tmp_path / "pictures")
    assert [file.stem for file in files] == [
        "score_parameters", "score_flops", "score_latency", "widths_and_depths", "heads", "loss_fine_tune",
        "loss_width", "loss_depth", "loss_final",
    ]  # fmt: skip
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_pictures_without_matplotlib_say_what_to_install(
    grid: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        MissingPackageError,
        match=r'--pictures needs matplotlib; run `.+python\S* -m pip install "dynabert_jax\[report\]"`',
    ):
        write_pictures(grid, tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_the_command_writes_the_page(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)

    def report(*arguments: Any) -> int:
        monkeypatch.setattr("sys.argv", ["dynabert", "report", *map(str, arguments)])
        return commands.main()

    out = tmp_path / "page.html"
    assert report(finished.folder, "--out", out) == 0
    assert f"written to {out}" in capsys.readouterr().out
    assert str(finished.folder) in out.read_text()
    assert report(finished.folder, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"page": str(out), "pictures": []}
    assert report(finished.folder, "--out", tmp_path / "missing" / "page.html") == 2
    assert capsys.readouterr().err == (
        f"error: cannot write {tmp_path / 'missing' / 'page.html'}: No such file or directory; "
        "name another file with --out\n"
    )
    assert report(finished.folder, "--out", tmp_path) == 2
    assert "Is a directory; name" in capsys.readouterr().err
    assert report(tmp_path) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_paths_in_the_home_folder(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(finished.folder)
    reported = report_run("~/run", "~/page.html", "~/pictures")
    assert reported.page == tmp_path / "page.html"
    assert {picture.parent for picture in reported.pictures} == {tmp_path / "pictures"}


def test_a_run_that_has_not_finished_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        facts(tmp_path)
