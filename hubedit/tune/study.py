"""The search: trials one after another until the time is up, kept in a journal, success against locality.

Optuna's sampler for several objectives (a tree-structured Parzen estimator, Bergstra et al. 2011; Ozaki et
al. 2020) proposes the points. It is seeded by the trial's number, so that a run that was cut off goes on as
it would have gone on. The statistics of all layers in question are made once, before the first trial.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hubedit.cache import Cache, digest
from hubedit.config import EditConfig, to_dict
from hubedit.edit.statistics.second_moments import second_moments
from hubedit.errors import ConfigError, HubEditError
from hubedit.evaluate import Reading, read
from hubedit.facts import Fact, to_record
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.progress import Progress, Silent
from hubedit.tune.cases import Cases
from hubedit.tune.front import PREFER, Tried, Tuned, choose, pareto
from hubedit.tune.space import Space
from hubedit.tune.trial import Score, Scorer, trial_edit

if TYPE_CHECKING:
    from optuna.samplers import TPESampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

STARTUP = 8
"""Trials, those near the default among them, before the sampler learns from those that are there."""
_FORMAT = 5  # goes up when a change here makes old trials another thing than new ones


def require_optuna() -> None:
    """Raises HubEditError with the command that installs Optuna, where it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise HubEditError("tuning needs Optuna", 'pip install "hubedit[tune]"') from error
    # its own words would stand between the lines of ours
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def tune(
    em: EditableModel,
    cases: Cases,
    *,
    budget: float,
    storage: Path,
    base: EditConfig | None = None,
    scorer: Scorer = trial_edit,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Trials for `budget` seconds, the final check of what was chosen included.

    `storage`: the journal; trials of the same model, facts and seed that it holds are gone on from. At
    least one trial is made where there is none. `base`: the settings that are not tuned, and the seed;
    `scorer`: makes and scores the edits.
    Raises HubEditError without Optuna, and where every edit of these facts collapses.
    """
    require_optuna()
    start = time.monotonic()
    cache, progress = cache or Cache(), progress or Silent()
    base = base or EditConfig()
    space = prepare(em, base, cache, progress)
    study = open_study(storage, study_name(em, cases, base, space))
    before = read(em, cases.trial)
    default = _default(em, study, cases.trial, space, base, scorer, cache, progress)

    def done() -> tuple[tuple[Tried, ...], tuple[Tried, ...], dict[str, Tried]]:
        trials = tuple(Tried(t.number, space.point(t.params), _score(t)) for t in finished(study))
        front = pareto((Tried(-1, None, default), *trials))
        return trials, front, {name: choose(front, weight) for name, weight in PREFER.items()}

    first = len(finished(study))
    while True:
        trials, front, chosen = done()
        # the next trial, and a check of the default, of what is chosen, and of that trial
        needed = (3 + len({t.number for t in chosen.values()} - {-1})) * _pace(study)
        if trials and time.monotonic() - start + needed >= budget:
            break
        _trial(em, study, cases.trial, before, space, base, scorer, cache, progress)
    if len(trials) == first:
        progress.message(
            f"no time for another trial: with the check it takes about {needed / 60:.0f} minutes, so give "
            "more --budget"
        )
    if max(t.score.mean() for t in front) <= 0:
        why = next((t.score.collapsed for t in trials if t.score.collapsed), "no fact could be edited")
        raise HubEditError(f"no trial came to anything ({len(trials)} made): {why}", "run it again for more")
    check = _check(em, cases.check, chosen, base, scorer, cache, progress)
    return Tuned(cases, base, trials, front, chosen, default, check)


def prepare(em: EditableModel, base: EditConfig, cache: Cache, progress: Progress) -> Space:
    """The space of a model; the statistics of all its sites are in the cache afterwards."""
    space = Space.of(em.num_layers)
    sites = [Site(layer, kind) for layer in space.layers() for kind in ("attention", "mlp")]
    second_moments(em, sites, base.stats, cache, progress)
    return space


def study_name(em: EditableModel, cases: Cases, base: EditConfig, space: Space) -> str:
    """One for everything that a trial's score depends on beside its point."""
    parts = {
        "format": _FORMAT,
        "model": em.identity,
        "dtype": str(em.dtype),
        "facts": [to_record(fact) for fact in (*cases.trial, *cases.check)],
        "base": to_dict(base),
        "space": asdict(space),
    }
    return f"hubedit-{digest(parts)[:16]}"


def open_study(storage: Path, name: str) -> Study:
    """The study of that name in the journal, made where it is not there.

    Raises ConfigError for a file that is no journal.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    storage.parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(storage))),
            study_name=name,
            directions=["maximize", "maximize"],
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{storage} is no journal of trials", "name another file with --storage") from error
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # of a run that was killed
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that have a score, in order."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def sampler(seed: int, study: Study) -> TPESampler:
    """The sampler of the study's next trial."""
    from optuna.samplers import TPESampler

    number = len(study.get_trials(deepcopy=False))
    return TPESampler(seed=seed * 100_003 + number, n_startup_trials=STARTUP)


def _pace(study: Study) -> float:
    """Seconds of a trial, on average."""
    seconds = [t.duration.total_seconds() for t in finished(study) if t.duration is not None]
    return sum(seconds) / max(len(seconds), 1)


def _default(
    em: EditableModel,
    study: Study,
    facts: Sequence[Fact],
    space: Space,
    base: EditConfig,
    scorer: Scorer,
    cache: Cache,
    progress: Progress,
) -> Score:
    """What hubedit does by itself on the trials' facts; the first trials begin near it."""
    stored = study.user_attrs.get("default")
    if stored is not None:
        return Score(**stored)
    progress.start("the default")
    score, edit = scorer(em, facts, read(em, facts), base, cache)
    if edit is not None and not study.get_trials(deepcopy=False):
        for parameters in space.starts(edit, base):
            study.enqueue_trial(parameters)
    study.set_user_attr("default", score.to_json())
    progress.finish(_said(score))
    return score


def _trial(
    em: EditableModel,
    study: Study,
    facts: Sequence[Fact],
    before: Reading,
    space: Space,
    base: EditConfig,
    scorer: Scorer,
    cache: Cache,
    progress: Progress,
) -> None:
    from optuna.trial import TrialState

    study.sampler = sampler(base.seed, study)
    trial = study.ask(space.distributions())
    point = space.point(trial.params)
    progress.start(f"trial {trial.number + 1}")
    done = False
    try:
        score, _ = scorer(em, facts, before, point.config(base), cache)
        trial.set_user_attr("score", score.to_json())
        study.tell(trial, [score.success, score.locality])
        done = True
    finally:
        if not done:
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
    progress.finish(f"{_said(score)}: layers {point.layers}, alpha {point.alpha:g}")


def _check(
    em: EditableModel,
    facts: Sequence[Fact],
    chosen: Mapping[str, Tried],
    base: EditConfig,
    scorer: Scorer,
    cache: Cache,
    progress: Progress,
) -> dict[str, Score]:
    """The default and the chosen points on facts that no trial saw; one point is measured once."""
    configs = {"default": base, **{name: tried.config(base) for name, tried in chosen.items()}}
    before = read(em, facts)
    made: dict[EditConfig, Score] = {}
    progress.start("checking", len(set(configs.values())), "edits")
    for config in configs.values():
        if config not in made:
            made[config], _ = scorer(em, facts, before, config, cache)
            progress.advance()
    found = {name: made[config] for name, config in configs.items()}
    progress.finish(f"balanced {found['balanced'].mean():.3f}, default {found['default'].mean():.3f}")
    return found


def _score(trial: FrozenTrial) -> Score:
    return Score(**trial.user_attrs["score"])


def _said(score: Score) -> str:
    if score.collapsed:
        return "collapsed"
    return f"success {100 * score.success:.0f} %, locality {100 * score.locality:.0f} %"
