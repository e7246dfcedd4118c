"""Alarms over many looks: what is seen and when, against p-values computed from the formulas; what is never seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

import labeltrack as lt

optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed (extra 'stats')")
scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (extra 'stats')")

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def _seeded():
    RNG.bit_generator.state = np.random.default_rng(22).bit_generator.state


def history_of(looks, labels):
    """Build a history of ``{step: values}``."""
    history = lt.History(metric="ce")
    for step, values in looks.items():
        history.add(step, lt.label_stats(labels[step] if isinstance(labels, dict) else labels, values), mode="eval")
    return history


def anytime_p(reference, looks):
    """Return the smallest p so far after each look, from samples of one label, by the published formulas."""
    rho, found = None, []
    for k, look in enumerate(looks, 1):
        pooled = np.concatenate(looks[:k])
        p = 1.0
        if look.mean() > reference.mean():
            p = scipy_stats.ttest_ind(look, reference, equal_var=False).pvalue * k * (k + 1)
        information = 1 / (pooled.var(ddof=1) / pooled.size + reference.var(ddof=1) / reference.size)
        rho = 7.9 / information if rho is None else rho
        if pooled.mean() > reference.mean():
            z = scipy_stats.norm.isf(scipy_stats.ttest_ind(pooled, reference, equal_var=False).pvalue / 2)
            growth = information * rho
            p = min(p, math.sqrt(growth + 1) * math.exp(-(z**2) / 2 * growth / (growth + 1)))
        found.append(min([p, *found[-1:]]))
    return found


def test_p_values_are_those_of_the_formulas():
    looks = [RNG.normal(1.0 + 0.08 * (k > 4), 0.4, 200) for k in range(12)]
    wanted = anytime_p(looks[0], looks[1:])
    seen = 0
    for last in range(2, 13):
        history = history_of(dict(enumerate(looks[:last])), np.zeros(200, int))
        for alarm in history.alarms(alpha=0.999):
            assert alarm.p == pytest.approx(wanted[last - 2], rel=1e-9)
            assert alarm.q == alarm.p
            seen += 1
    assert seen > 4


def test_p_is_the_level_at_which_the_published_confidence_sequence_excludes_zero():
    looks = [RNG.normal(1.0 + 0.04 * (k > 0), 0.4, 2000) for k in range(30)]
    first = None
    levels = []
    for k in range(1, 30):
        pooled = np.concatenate(looks[1 : k + 1])
        t = 1 / (pooled.var(ddof=1) / pooled.size + looks[0].var(ddof=1) / looks[0].size)
        first = t if first is None else first
        rho, away = math.sqrt(7.9 / first), pooled.mean() - looks[0].mean()

        def beyond(log_level, t=t, rho=rho, away=away):
            grown = t * rho**2 + 1
            return math.sqrt(2 * grown / (t**2 * rho**2) * (math.log(grown) / 2 - log_level)) - away

        levels.append(optimize.brentq(beyond, -100, 0))
    (alarm,) = history_of(dict(enumerate(looks)), np.zeros(2000, int)).alarms(alpha=0.99)
    assert math.log(alarm.p) == pytest.approx(min(levels), rel=0.01)  # Student's t is nearly normal


def test_a_change_is_an_alarm_from_its_step_on_and_only_for_its_label():
    labels = np.repeat(["cat", "dog", "eel"], 300)
    looks = {step: RNG.normal(1, 0.3, 900) for step in range(1, 21)}
    for step in range(8, 21):
        looks[step][labels == "dog"] += 0.2
        looks[step][labels == "eel"] -= 0.2
    looks[12][labels == "cat"] += 0.3  # for one step only
    history = history_of(looks, labels)
    found = {alarm.label: alarm for alarm in history.alarms()}
    assert {label: alarm.step for label, alarm in found.items()} == {"dog": 8, "cat": 12}
    dog = found["dog"]
    assert (dog.mean_before, dog.mean) == (history.at(1)["dog"].mean, history.at(20)["dog"].mean)
    assert dog.difference == dog.mean - dog.mean_before
    assert dog.p <= dog.q < 0.05
    assert [alarm.label for alarm in history.alarms()] == ["dog", "cat"]  # the largest change at last comes first
    assert [alarm.label for alarm in history.alarms(higher_is_worse=False)] == ["eel"]
    assert history.alarms(against=14) == []
    assert history.alarms("eval", against=20) == []


def test_alarms_of_one_dataset_are_those_of_a_history_without_the_others():
    history, alone = lt.History(metric="ce"), lt.History(metric="ce")
    for step in range(1, 8):
        worse = lt.label_stats(np.zeros(300, int), RNG.normal(1.0 + 0.3 * (step > 4), 0.3, 300))
        for of, ds_id in ((history, "a"), (alone, "")):
            of.add(step, worse, mode="eval", ds_id=ds_id)
        history.add(step, lt.label_stats(np.zeros(300, int), RNG.normal(1.0, 0.3, 300)), mode="eval", ds_id="b")
    (alarm,) = alone.alarms()
    assert (alarm.step, history.alarms(ds_id="a"), history.alarms(ds_id="b")) == (5, [alarm], [])
    with pytest.raises(KeyError, match="c"):
        history.alarms(ds_id="c")


def test_a_small_change_that_lasts_is_seen_although_no_step_shows_it():
    looks = {step: RNG.normal(1.0 + 0.13 * (step > 0), 0.5, 400) for step in range(30)}
    history = history_of(looks, np.zeros(400, int))
    (alarm,) = history.alarms()
    single = [
        scipy_stats.ttest_ind(looks[step], looks[0], equal_var=False).pvalue * step * (step + 1) for step in looks
    ]
    assert alarm.p < min(single[1:])


def test_fifty_looks_at_labels_that_do_not_change_are_no_alarm():
    labels = np.repeat(np.arange(200), 30)
    for draw in (RNG.exponential, lambda size: RNG.lognormal(sigma=1.5, size=size)):
        history = history_of({step: draw(size=labels.size) for step in range(51)}, labels)
        assert history.alarms() == []
        assert history.alarms(higher_is_worse=False) == []


def test_few_samples_and_absent_labels_are_no_alarm():
    looks = {1: np.zeros(60), 2: np.full(60, 5.0), 3: np.full(60, 5.0)}
    labels = {1: np.repeat([0, 1, 2], [10, 40, 10]), 2: np.repeat([0, 3], [30, 30]), 3: np.repeat([0, 1], [20, 40])}
    (alarm,) = history_of(looks, labels).alarms()
    assert (alarm.label, alarm.step, alarm.p) == (1, 3, 0.0)


def test_a_mean_that_is_no_longer_finite_is_an_alarm():
    looks = {step: RNG.normal(size=60) for step in range(4)}
    looks[2][45] = np.nan
    (alarm,) = history_of(looks, np.repeat([0, 1], 30)).alarms()
    assert (alarm.label, alarm.step, alarm.q) == (1, 2, 0.0)


@pytest.mark.parametrize("power", [1020, -900])
def test_alarms_do_not_depend_on_the_scale_of_samples(power):
    labels = np.repeat([0, 1, 2], 60)
    looks = {step: RNG.uniform(-5, 5, 180) + (step > 1) * np.repeat([0, 5, -9], 60) for step in range(5)}
    expected = history_of(looks, labels).alarms()
    scaled = history_of({step: np.ldexp(values, power) for step, values in looks.items()}, labels)
    assert [(found.label, found.step, found.p, found.q) for found in scaled.alarms()] == [
        (found.label, found.step, found.p, found.q) for found in expected
    ]
    assert [found.label for found in expected] == [1]
    assert [found.label for found in scaled.alarms(higher_is_worse=False)] == [2]


def test_a_standard_deviation_that_no_double_holds_is_no_alarm():
    few, many = (np.tile([size, -size], 30) for size in (1.0, 1.79e308))
    assert history_of({1: few, 2: many, 3: few}, np.zeros(60, int)).alarms() == []


def test_names_are_those_of_the_mapping():
    history = lt.History()
    for step, value in ((1, 0.0), (2, 1.0)):
        history.add(step, lt.label_stats(np.zeros(30, int), np.full(30, value), label_mapping={"cat": 0}))
    (alarm,) = history.alarms()
    assert (alarm.label, alarm.name) == (0, "cat")


def test_mistakes_are_named():
    history = history_of({1: np.ones(30), 2: np.ones(30)}, np.zeros(30, int))
    with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
        history.alarms(alpha=0)
    with pytest.raises(KeyError, match="no step in mode 'eval': 7"):
        history.alarms(against=7)
    with pytest.raises(KeyError, match="no mode 'train'"):
        history.alarms("train")
    with pytest.raises(KeyError, match="no mode to read"):
        lt.History().alarms()
