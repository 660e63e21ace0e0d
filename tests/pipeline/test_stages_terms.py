"""Terms: settled once, kept by what stands there, never mixed."""

import shutil
from dataclasses import replace

import pytest
import torch

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.errors import UnfitWorkerError
from tomoseg.core.version import code_version, environment
from tomoseg.io.stores import Ledger, digest
from tomoseg.nets.card import load_card
from tomoseg.nets.checkpoint import load_network, save_model
from tomoseg.nets.options import PredictionOptions
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.pipeline.stages import run_stage
from tomoseg.pipeline.stages.context import Context, Stage
from tomoseg.pipeline.stages.segment import segment_block
from tomoseg.pipeline.stages.terms import Question, Terms, agree, kept_notes, model_digest, settle
from tomoseg.recipe.recipe import recipe_from

OURS, OTHERS = code_version(), "0.1.0+somebody"


class Answers:
    """A runner whose workers answer so; it runs nothing."""

    dashboard = ""

    def __init__(self, *precisions, device="cpu"):
        self._answers = [{"precision": one, "device": device} for one in precisions]
        self.times = 0

    def map(self, task, items, *, on_device=False, waits=None):
        raise AssertionError("nothing is to be run")

    def ask(self, question, *, on_device=False):
        assert on_device
        self.times += 1
        return self._answers


NETWORKS = Stage("segment", (), lambda context: {"a": (1, 2)}, lambda *_: {}, question=str)
PLAIN = replace(NETWORKS, name="clean", question=None)


def context_of(folder, runner, **session):
    segment = {"precision": session.pop("precision", "auto")}
    recipe = recipe_from({"session": session, "segment": segment})
    return Context("t", "", folder, recipe, {}, (), runner, lambda *progress: None)


def plant(context, stage, *, is_finished, **terms):
    """Have results on some terms stand there, or be begun; return their digest."""
    facts = settle(context, stage, None)[1] | {"terms": Terms(**terms).as_dict()}
    if is_finished:
        return {"digest": digest(facts), "terms": facts["terms"]}
    Ledger(context.records, stage.name, digest(facts)).begin(terms=facts["terms"])
    return None


@pytest.mark.parametrize(
    ("precisions", "settled"),
    [
        (["bfloat16"], "bfloat16"),
        (["bfloat16", "bfloat16"], "bfloat16"),
        (["float16", "float16"], "float16"),
        (["float16", "bfloat16"], "float32"),
        (["bfloat16", "float32"], "float32"),
    ],
)
def test_workers_agree_on_one_precision_before_the_first_block(folder, precisions, settled):
    context = context_of(folder, Answers(*precisions))
    terms, facts = settle(context, NETWORKS, None)
    assert terms == Terms(OURS, settled)
    assert facts["terms"] == {"code": OURS, "precision": settled}
    assert len(terms.notes) == (len(set(precisions)) > 1)
    assert terms == agree(context.runner.ask("", on_device=True))


def test_a_stage_without_networks_asks_nobody(folder):
    context = context_of(folder, Answers())
    assert settle(context, PLAIN, None)[0] == Terms(OURS)
    assert context.runner.times == 0


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize(
    ("there", "asked", "now", "kept"),
    [
        ("float32", "auto", "bfloat16", "float32"),
        ("bfloat16", "auto", "float32", "bfloat16"),
        ("float32", "bfloat16", "bfloat16", "bfloat16"),
        ("bfloat16", "bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_auto_is_what_stands_there(folder, is_finished, there, asked, now, kept):
    context = context_of(folder, Answers(now), precision=asked)
    finished = plant(context, NETWORKS, is_finished=is_finished, code=OURS, precision=there)
    context.runner.times = 0
    terms, facts = settle(context, NETWORKS, finished)
    assert terms.precision == facts["terms"]["precision"] == kept
    # Where results are finished nothing is computed, and no worker need be there.
    assert context.runner.times == (not is_finished or there != kept)


@pytest.mark.parametrize(
    ("is_finished", "device", "kept"),
    [(True, "cpu", "float16"), (False, "cuda", "float16"), (False, "cpu", "float32")],
)
def test_what_a_gpu_began_in_float16_no_cpu_goes_on_with(folder, is_finished, device, kept):
    context = context_of(folder, Answers("float32", device=device))
    finished = plant(context, NETWORKS, is_finished=is_finished, code=OURS, precision="float16")
    assert settle(context, NETWORKS, finished)[0].precision == kept


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("stage", [NETWORKS, PLAIN], ids=["networks", "plain"])
def test_results_of_other_code_stand_only_where_a_person_says_so(
    folder, stage, is_finished, caplog
):
    precision = "float32" if stage.question else ""
    context = context_of(folder, Answers("float32"))
    finished = plant(context, stage, is_finished=is_finished, code=OTHERS, precision=precision)
    terms, facts = settle(context, stage, finished)
    assert terms == Terms(OURS, precision)
    told = [f"was begun with tomoseg {OTHERS}, not {OURS}" in line for line in caplog.messages]
    assert told == ([] if is_finished else [True])
    context = context_of(folder, Answers("float32"), results_of="any_code")
    kept, kept_facts = settle(context, stage, finished)
    assert kept == Terms(OTHERS, precision)
    assert digest(kept_facts) != digest(facts)


@pytest.mark.parametrize("record", [{}, {"digest": "0" * 64}, {"digest": "", "terms": {}}])
def test_a_record_that_names_no_code_never_stands(folder, record):
    context = context_of(folder, Answers("float32"), results_of="any_code")
    assert settle(context, NETWORKS, record)[0].code == OURS


def test_kept_results_are_told():
    records = {
        name: {"terms": {"code": code}}
        for name, code in (("ingest", OTHERS), ("segment", OTHERS), ("clean", OURS))
    }
    (note,) = kept_notes(records)
    assert note.startswith(f"ingest, segment: results of tomoseg {OTHERS} were kept")
    assert "session.results_of" in note


@pytest.fixture
def values(tiny_model, tiny_session, tmp_path):
    return {
        "session": {
            "input": str(tiny_session / "simulated_0500.mrc"),
            "output": str(tmp_path / "out"),
        },
        "blocks": {"shape": (24, 48, 96)},
        "segment": {"model": str(tiny_model), "score_maps": False},
        **{"trace": {}, "pick": {}, "export": {"masks": []}},
        "compute": {"runner": "serial"},
    }


def process(values):
    session = plan_session(recipe_from(values))
    (row,) = run_session(session, lambda *progress: None)["tomograms"]
    return row, session.output.read_json("simulated_0500/manifest.json")


def test_a_session_says_what_it_was_made_with_and_keeps_to_it(values, monkeypatch, caplog):
    monkeypatch.setattr("tomoseg.nets.device._fastest_dtype", lambda device: torch.bfloat16)
    row, manifest = process(values)
    segment = manifest["stages"]["segment"]
    assert segment["terms"] == {"code": OURS, "precision": "bfloat16"}
    assert manifest["environment"] == segment["environment"] == environment()
    (said,) = row["computed"]
    assert said.startswith("bfloat16 on cpu")
    assert row["computed"] == segment["summary"]["computed"] == {said: 4}
    ledger = Ledger.of(
        plan_session(recipe_from(values)).output / "simulated_0500/.tomoseg",
        "segment",
        segment["digest"],
    )
    assert ledger.read("predict/0/0-0-0")["computed"] == said

    # Elsewhere auto means another precision: what is finished stands, what is asked for is made.
    monkeypatch.setattr("tomoseg.nets.device._fastest_dtype", lambda device: torch.float32)
    assert process(values)[0]["state"] == "already there"
    caplog.clear()
    values["segment"]["precision"] = "float32"
    row, manifest = process(values)
    assert row["state"] == "done"
    assert [one.partition(" on ")[0] for one in row["computed"]] == ["float32"]
    assert any("made with segment.precision bfloat16, not float32" in m for m in caplog.messages)

    # Other code makes all again, unless a person keeps it.
    monkeypatch.setattr("tomoseg.pipeline.stages.terms.code_version", lambda: OTHERS)
    values["session"]["results_of"] = "any_code"
    row, _ = process(values)
    assert row["state"] == "already there"
    assert any(f"results of tomoseg {OURS} were kept" in note for note in row["notes"])
    values["session"]["results_of"] = "this_code"
    caplog.clear()
    row, manifest = process(values)
    assert row["state"] == "done"
    assert manifest["stages"]["ingest"]["terms"]["code"] == OTHERS
    assert any(f"made with tomoseg {OURS}, not {OTHERS}" in line for line in caplog.messages)


def test_a_worker_with_another_model_is_unfit(values, tiny_model, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_model, tmp_path / "model")
    values["segment"]["model"] = str(copy)
    session = plan_session(recipe_from(values))
    context = session.context(session.tomograms[0], SerialRunner(), lambda *progress: None)
    run_stage(context, "ingest")
    question = Question(
        PredictionOptions("cpu", "float32"), ((copy, model_digest(load_card(copy))),)
    )
    assert question() == {"precision": "float32", "device": "cpu"}
    (network,) = segment_block(context).networks
    meant = network.predictor()
    other, card = load_network(copy)
    other.head.bias.data += 1
    save_model(copy, other, card)
    assert network.predictor() is meant, "it was loaded before"
    monkeypatch.setattr("tomoseg.nets.predict._CACHE", {})
    for asked in (question, network.predictor):
        with pytest.raises(UnfitWorkerError, match="is not the one that the run began with"):
            asked()


def with_options(network, **options):
    return replace(network, options=replace(network.options, **options))


def test_a_worker_that_cannot_compute_so_is_unfit(values, monkeypatch):
    session = plan_session(recipe_from(values))
    context = session.context(session.tomograms[0], SerialRunner(), lambda *progress: None)
    run_stage(context, "ingest")
    (network,) = segment_block(context).networks
    with pytest.raises(UnfitWorkerError, match="no fast float16"):
        with_options(network, precision="float16").predictor()
    with pytest.raises(UnfitWorkerError, match="no device 'cuda'"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with_options(network, device="cuda").predictor()
