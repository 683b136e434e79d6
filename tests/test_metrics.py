from fslab.metrics import METRICS


def test_the_table_says_each_metric_once_and_how_to_read_it():
    for name, metric in METRICS.items():
        assert metric.title, name
        assert metric.meaning.endswith("."), name
        assert metric.better in ("higher", "lower", "near 0", "near 1"), name
    assert len({x.title for x in METRICS.values()}) == len(METRICS)
    assert METRICS["share_swapped"].text(0.5) == "50"
    assert METRICS["psnr"].text(20.46) == "20.5"
    assert METRICS["closure"].text(-0.25) == "−0.250"
    assert METRICS["closure"].text(None) == METRICS["closure"].text(float("nan")) == "–"
