"""Duplicates, leakage and contamination against brute force; each property with its twin."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from bigmodel_utils import data, reliability
from bigmodel_utils._checks import InputError
from bigmodel_utils.reliability import Bands, _cost

# One row and many bands: a pair of similarity 0.5 is missed once in 2^64.
SURE = Bands(64, 1)
WORDS = st.sampled_from("abcd")
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=8).map(" ".join), min_size=1, max_size=12)


def list_runs(text, size):
    """Runs of words as strings, written without the library."""
    words = text.split()
    size = min(size, len(words))
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def compare_runs(text, other, size):
    runs, others = list_runs(text, size), list_runs(other, size)
    return len(runs & others) / len(runs | others)


def list_true_pairs(texts, size, threshold):
    firsts = [index for index, text in enumerate(texts) if text not in texts[:index]]
    return {
        (one, other)
        for one, other in itertools.combinations(firsts, 2)
        if compare_runs(texts[one], texts[other], size) >= threshold
    }


# Shingles and similarity


@given(TEXTS, st.integers(1, 4))
def test_similarity_of_hashes_equals_that_of_strings(texts, size):
    for text, other in itertools.pairwise(texts):
        hashes = [reliability.build_shingles(part, size=size) for part in (text, other)]
        assert reliability.measure_similarity(*hashes) == compare_runs(text, other, size)
        assert len(hashes[0]) == len(list_runs(text, size))


def test_twin_words_without_their_places_are_not_told_apart():
    one, other = "a b c d", "d c b a"
    assert compare_runs(one, other, 2) == 0
    assert compare_runs(one, other, 1) == 1
    hashes = [reliability.build_shingles(text, size=2) for text in (one, other)]
    assert reliability.measure_similarity(*hashes) == 0


def test_shingles_are_the_same_in_every_process():
    """Python's own hash of a string would change from run to run."""
    assert reliability.build_shingles("to be", size=2).tolist() == [9226076273168755838]


def test_tokens_are_words_signs_and_single_characters():
    for text, num_tokens in (
        ("x_1 = f(y)", 6),
        ("数据质量", 4),
        ("モデルof学習", 6),
        ("a\n\t b", 2),
    ):
        assert len(reliability.build_shingles(text, size=1)) == num_tokens, text


def test_a_lone_surrogate_is_a_token():
    assert len(reliability.build_shingles("a\udc80", size=1)) == 2


# Bands


def measure_proposed(similarity, bands, *, num_pairs=600, size=60):
    """Share of pairs of texts of one similarity that are compared, and that similarity."""
    common = round(2 * similarity * size / (1 + similarity))
    texts = []
    for pair in range(num_pairs):
        words = [f"{pair}w{number}" for number in range(2 * size - common)]
        texts += [" ".join(words[:size]), " ".join(words[size - common :])]
    report = reliability.find_near_duplicates(texts, threshold=0.9, shingle_size=1, bands=bands)
    return report.num_candidates / num_pairs, common / (2 * size - common)


@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("bands", [Bands(8, 4), Bands(20, 5)])
def test_pairs_are_proposed_as_often_as_the_s_curve_says(similarity, bands):
    share, true = measure_proposed(similarity, bands)
    expected = bands.estimate_probability(true)
    margin = 4 * np.sqrt(expected * (1 - expected) / 600) + 1e-3
    assert share == pytest.approx(expected, abs=margin)


def test_twin_bands_and_rows_are_not_exchanged():
    share, true = measure_proposed(0.5, Bands(8, 4))
    assert share > 10 * Bands(4, 8).estimate_probability(true)


@given(st.floats(0, 1), st.integers(2, 40), st.integers(1, 20))
def test_probability_equals_the_binomial(similarity, num_bands, num_rows):
    """At least one of b bands, each whole with probability s^r."""
    found = Bands(num_bands, num_rows).estimate_probability(similarity)
    assert found == pytest.approx(stats.binom.sf(0, num_bands, similarity**num_rows), abs=1e-12)


@given(st.floats(0.1, 1), st.floats(0.5, 0.999), st.integers(64, 512))
def test_bands_keep_their_promise_with_the_most_rows(threshold, recall, num_permutations):
    try:
        bands = reliability.find_bands(threshold, num_permutations=num_permutations, recall=recall)
    except InputError:
        assert Bands(num_permutations, 1).estimate_probability(threshold) < recall
        return
    assert bands.num_permutations <= num_permutations
    assert bands.estimate_probability(threshold) >= recall
    rows = bands.num_rows + 1
    if num_permutations // rows >= 2:
        more = Bands(num_permutations // rows, rows)
        assert more.estimate_probability(threshold) < recall


def test_twin_the_default_bands_of_datasketch_miss_pairs_at_the_threshold():
    import datasketch

    theirs = datasketch.MinHashLSH(threshold=0.8, num_perm=128)
    assert Bands(theirs.b, theirs.r).estimate_probability(0.8) < 0.6
    assert reliability.find_bands(0.8).estimate_probability(0.8) > 0.99


# Near-duplicates


@given(TEXTS, st.integers(1, 3), st.sampled_from([0.5, 0.6, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_near_duplicates_equal_brute_force(texts, size, threshold):
    report = reliability.find_near_duplicates(
        texts, threshold=threshold, shingle_size=size, bands=SURE
    )
    pairs = list_true_pairs(texts, size, threshold)
    assert {pair[:2] for pair in report.pairs} == pairs
    for first, second, similarity in report.pairs:
        assert similarity == compare_runs(texts[first], texts[second], size)
    same = {(texts.index(text), index) for index, text in enumerate(texts)}
    links = np.zeros((len(texts), len(texts)), bool)
    for first, second in pairs | same:
        links[first, second] = True
    num_groups, _ = sparse.csgraph.connected_components(links, directed=False)
    assert len(report.kept) == num_groups
    assert report.redundant_share == pytest.approx(1 - num_groups / len(texts))
    grouped = sorted(itertools.chain(*report.exact_groups))
    assert grouped == [index for index, text in enumerate(texts) if texts.count(text) > 1]


def test_twin_few_bands_of_many_rows_miss_what_brute_force_finds():
    texts = [f"w{number} x y z v u" for number in range(30)]
    settings_ = {"threshold": 0.5, "shingle_size": 1}
    missing = reliability.find_near_duplicates(texts, bands=Bands(2, 32), **settings_)
    assert len(missing.pairs) < 435 == len(list_true_pairs(texts, 1, 0.5))
    assert len(reliability.find_near_duplicates(texts, bands=SURE, **settings_).pairs) == 435


def test_report_is_reproducible_and_ready_for_json():
    texts = ["a b c d e f g", "a b c d e f g h", "a b c d e f g", "z"]
    reports = [reliability.find_near_duplicates(texts, threshold=0.7) for _ in range(2)]
    assert reports[0] == reports[1]
    found = json.loads(json.dumps(reports[0].to_dict()))
    assert found["groups"] == [[0, 1, 2]]
    assert found["pairs"] == [{"first": 0, "second": 1, "similarity": 0.75}]
    assert found["redundant_share"] == 0.5
    assert reports[0].kept.tolist() == [0, 3]


@pytest.fixture(scope="module")
def library():
    return data.load_standard_library()


@pytest.fixture(scope="module")
def library_report(library):
    texts = [document.text for document in library.documents]
    return reliability.find_near_duplicates(texts, threshold=0.5)


def test_the_encodings_family_is_found(library, library_report):
    largest = library_report.groups[0]
    assert len(largest) > 20
    assert {library.documents[index].family for index in largest} == {"encodings"}
    found = {index for pair in library_report.pairs for index in pair[:2]}
    families = [library.documents[index].family for index in found]
    assert families.count("encodings") > 0.8 * len(families)


@pytest.mark.slow
def test_precision_is_one_and_recall_is_what_the_bands_promise(library, library_report):
    texts = [document.text for document in library.documents]
    sets = {text: reliability.build_shingles(text) for text in texts}
    true = set()
    for one, other in itertools.combinations(sets, 2):
        sizes = sorted((len(sets[one]), len(sets[other])))
        if sizes[0] >= 0.5 * sizes[1]:  # else similarity is below 0.5
            similarity = reliability.measure_similarity(sets[one], sets[other])
            if similarity >= 0.5:
                true.add((texts.index(one), texts.index(other), similarity))
    for report in (library_report, reliability.find_near_duplicates(texts)):
        wanted = {pair for pair in true if pair[2] >= report.threshold}
        assert set(report.pairs) <= wanted
        assert len(report.pairs) >= 0.97 * len(wanted) > 50
        assert report.num_candidates < len(texts) ** 2 / 50


@pytest.mark.slow
def test_planted_copies_of_docstrings_are_found():
    documents = data.load_standard_library("docstrings").documents
    texts = sorted({document.text for document in documents if len(document.text) > 400})
    copies, sources = reliability.make_near_duplicates(texts, 300, edited_share=0.01, seed=3)
    report = reliability.find_near_duplicates([*texts, *copies], threshold=0.7)
    planted = [(int(source), len(texts) + number) for number, source in enumerate(sources)]
    true = [
        pair
        for pair in planted
        if reliability.measure_similarity(
            reliability.build_shingles(texts[pair[0]]),
            reliability.build_shingles(copies[pair[1] - len(texts)]),
        )
        >= 0.7
    ]
    assert len(true) > 250
    detection = reliability.measure_detection([pair[:2] for pair in report.pairs], true)
    assert detection.recall.value > 0.98


def test_copies_differ_in_as_many_words_as_asked():
    text = " ".join(f"w{number}" for number in range(100)) + "\n    end"
    (copy,), _ = reliability.make_near_duplicates([text], 1, edited_share=0.1, seed=1)
    assert sum(one != other for one, other in zip(text.split(), copy.split(), strict=True)) == 10
    assert copy.count("\n    ") == 1


# Leakage and contamination


@given(TEXTS, TEXTS, st.sampled_from([0.5, 0.75, 1.0]))
@settings(max_examples=60, deadline=None)
def test_leakage_equals_brute_force(training, test, threshold):
    report = reliability.measure_leakage(
        training, test, threshold=threshold, shingle_size=2, bands=SURE
    )
    best = [max(compare_runs(text, known, 2) for known in training) for text in test]
    assert report.is_leaked.tolist() == [similarity >= threshold for similarity in best]
    assert report.num_exact == sum(text in training for text in test)
    assert report.share.value == pytest.approx(np.mean(np.array(best) >= threshold))
    for text in report.leaked:
        assert text.similarity == best[text.test]
        assert text.similarity == compare_runs(training[text.training], test[text.test], 2)


def test_twin_an_exact_search_overlooks_a_changed_word():
    training, test = ["a b c d e f g h i j k l"], ["a b c d e f g h i j k m"]
    assert data.count_overlap(training, test) == 0
    report = reliability.measure_leakage(training, test, shingle_size=2)
    assert report.share.value == 1
    assert report.num_exact == 0
    assert json.loads(json.dumps(report.to_dict()))["leaked"][0]["training"] == 0


@given(TEXTS, TEXTS, st.integers(1, 4))
def test_contamination_equals_brute_force(corpus, test, size):
    long = [len(text.split()) >= size for text in test]
    if not any(long):
        return
    report = reliability.measure_contamination(corpus, test, shingle_size=size)
    known = set().union(*(list_runs(text, size) for text in corpus))
    for text, judged, overlap in zip(test, long, report.overlaps, strict=True):
        runs = list_runs(text, size)
        assert np.isnan(overlap) if not judged else overlap == len(runs & known) / len(runs)
    assert report.num_short == long.count(False)
    dirty = [bool(list_runs(text, size) & known) for text in itertools.compress(test, long)]
    assert report.share.value == pytest.approx(np.mean(dirty))


def test_contamination_sees_a_part_that_similarity_does_not(library):
    """The twin: the same test text, in the same corpus, looked for as a whole."""
    corpus = [document.text for document in library.documents if document.family == "json"]
    passage = "\n".join(max(corpus, key=len).splitlines()[40:60])
    assert reliability.measure_contamination(corpus, [passage]).overlaps[0] == 1.0
    assert reliability.measure_leakage(corpus, [passage]).share.value == 0
    other = " ".join(f"word{number}" for number in range(50))
    report = reliability.measure_contamination(corpus, [other, "short"])
    assert report.to_dict()["overlaps"] == [0.0, None]


# Detection


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30), min_size=1))
def test_detection_equals_counts(found, injected):
    detection = reliability.measure_detection(found, injected)
    assert detection.num_hits == sum(item in injected for item in found)
    assert detection.recall.value == detection.num_hits / len(injected)
    if found:
        assert detection.precision.value == detection.num_hits / len(found)
    else:
        assert detection.precision is None
    json.dumps(detection.to_dict())


def test_twin_precision_and_recall_are_not_exchanged():
    detection = reliability.measure_detection([1, 2, 3, 4], [4, 5])
    assert (detection.precision.value, detection.recall.value) == (0.25, 0.5)
    scipys = stats.binomtest(1, 4).proportion_ci(method="wilson")
    assert detection.precision.low == pytest.approx(scipys.low)


# Cost


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponent_of_a_known_cost(monkeypatch, power):
    clock = SimpleNamespace(now=0.0)
    fake = SimpleNamespace(
        process_time=lambda: clock.now,
        get_clock_info=lambda _: SimpleNamespace(resolution=1e-9),
    )
    monkeypatch.setattr(_cost, "time", fake)

    def search(part):
        clock.now += len(part) ** power

    cost = reliability.measure_search_cost(search, ["a"] * 400, sizes=[50, 100, 400])
    assert cost.exponent.value == pytest.approx(power)
    assert cost.exponent.low == pytest.approx(cost.exponent.high)
    assert cost.to_dict()["seconds"][0] == pytest.approx([50**power, 100**power, 400**power])


def test_cost_is_measured_on_parts_of_the_sizes_asked_for():
    seen = []
    texts = [f"t{number}" for number in range(30)]
    reliability.measure_search_cost(seen.append, texts, sizes=[10, 20], num_rounds=2)
    assert [len(part) for part in seen[1:]] == [10, 20, 10, 20]
    assert seen[1] == seen[2][:10] != seen[3]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: reliability.build_shingles(" \n"), "text"),
        (lambda: reliability.build_shingles("a", size=0), "size"),
        (lambda: reliability.measure_similarity(np.array([]), np.array([1])), "shingles"),
        (lambda: Bands(1, 5), "num_bands"),
        (lambda: Bands(5, 0), "num_rows"),
        (lambda: Bands(5, 5).estimate_probability(1.5), "similarity"),
        (lambda: reliability.find_bands(0.0), "threshold"),
        (lambda: reliability.find_bands(0.01, num_permutations=16), "num_permutations"),
        (lambda: reliability.find_bands(0.8, recall=1.0), "recall"),
        (lambda: reliability.find_near_duplicates([]), "texts"),
        (lambda: reliability.find_near_duplicates("one text"), "texts"),
        (lambda: reliability.find_near_duplicates(["a", ""]), "texts"),
        (lambda: reliability.find_near_duplicates(["a", float("nan")]), "texts"),
        (lambda: reliability.find_near_duplicates(["a"], threshold=float("nan")), "threshold"),
        (lambda: reliability.find_near_duplicates(["a"], threshold=1.1), "threshold"),
        (lambda: reliability.find_near_duplicates(["a"], shingle_size=0), "shingle_size"),
        (lambda: reliability.find_near_duplicates(["a"], seed=-1), "seed"),
        (lambda: reliability.find_near_duplicates(["a"], bands=(20, 5)), "bands"),
        (lambda: reliability.make_near_duplicates(["a"], 2), "num_copies"),
        (lambda: reliability.make_near_duplicates(["a"], 1, edited_share=0.0), "edited_share"),
        (lambda: reliability.measure_leakage([], ["a"]), "training_texts"),
        (lambda: reliability.measure_leakage(["a"], ["\t"]), "test_texts"),
        (lambda: reliability.measure_contamination(["a"], ["too short"]), "test_texts"),
        (lambda: reliability.measure_contamination([""], ["a"], shingle_size=1), "corpus_texts"),
        (lambda: reliability.measure_detection([1], []), "injected"),
        (lambda: reliability.measure_search_cost(len, ["a"] * 9, sizes=[4]), "sizes"),
        (lambda: reliability.measure_search_cost(len, ["a"] * 9, sizes=[8, 4]), "sizes"),
        (lambda: reliability.measure_search_cost(len, ["a"] * 9, sizes=[4, 10]), "sizes"),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}.*` .* Received: .* Fix: "):
        call()
