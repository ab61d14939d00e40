"""Tests that miss a bug, or reject what is right, as cells of notebook 7, and words of the feedback each must get."""

WRONG = {
    "catch_split": [
        (
            """
            def test_split(split):
                training, test = split(100, 20, 5)
                return len(training) > len(test)
            """,
            "passes a split whose two parts",
        ),
        ("def test_split(split): return len(split(100, 20, 5)[0]) > 0", "passes the exhibit"),
        (
            """
            def test_split(split):
                training, test = split(100, 20, 5)
                return not set(training.tolist()) & set(test.tolist())
            """,
            "passes a random split",
        ),
        (
            """
            def test_split(split):
                training, test = split(100, 20, 5)
                return (training[:, None] - test[None, :]).abs().min() > 0 and len(training) + len(test) <= 100 and (
                    test.diff() == 1
                ).all()
            """,
            "without the gap",
        ),
        (
            """
            def test_split(split):
                training, test = split(100, 20, 5)
                assert training.max() < test.min() - 5
            """,
            "rejects another right implementation",
        ),
        ("def test_split(split): return False", "no to everything"),
        ("def test_split(split): split(100, 20, 5)[0].max()", "is a `return` missing"),
    ],
    "catch_correlation": [
        (
            """
            def test_correlation(correlation):
                t = torch.randn(50, generator=torch.Generator().manual_seed(1))
                return abs(correlation(t, t) - 1) < 1e-5
            """,
            "passes the exhibit",
        ),
        (
            """
            def test_correlation(correlation):
                p, t = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
                return -1 <= correlation(p, t) <= 1 and correlation(t, t) > 0.99 and correlation(-t, t) < -0.99
            """,
            "$R^2$ without the root",
        ),
        (
            """
            def test_correlation(correlation):
                p, t = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
                p = p + t
                return torch.isclose(correlation(2 * p, t), correlation(p, t), atol=1e-5) and correlation(-t, t) < 0
            """,
            "means were forgotten",
        ),
        (
            """
            def test_correlation(correlation):
                p, t = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
                return torch.isclose(correlation(2 * (t + p) + 3, t), correlation(t + p, t), atol=1e-5)
            """,
            "lost its sign",
        ),
        (
            """
            def test_correlation(correlation):
                t = torch.randn(50, generator=torch.Generator().manual_seed(1))
                return correlation(2 * t, t) == 2
            """,
            "no to everything",
        ),
    ],
    "catch_swap": [
        ("def test_update(update): return update(0.0, 1.0, 1.0, 1.0, 1.0)[0] > 0.5", "passes the exhibit"),
        ("def test_update(update): return update(0.0, 1.0, 1.0, 0.5, 1e-9)[0] > 0.999", "forgets $Q$"),
        (
            """
            def test_update(update):
                return update(0.0, 1.0, 1.0, 0.5, 1e-9)[0] > 0.999 and update(0.0, 1.0, 1.0, 1e9, 1.0)[0] > 0.999
            """,
            "standard deviation",
        ),
        (
            "def test_update(update): return update(0.0, 1.0, 1.0, 0.1, 1.0)[0] > 0.9",
            "rejects the right implementation",
        ),
    ],
    "catch_inflation": [
        (
            """
            def test_inflate(inflation):
                E = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
                return torch.allclose(inflation(E, 1.5).mean(0), E.mean(0))
            """,
            "passes the exhibit",
        ),
        (
            """
            def test_inflate(inflation):
                E = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
                return (inflation(E, 1.5).std(0) > E.std(0)).all()
            """,
            "not by the factor",
        ),
        (
            """
            def test_inflate(inflation):
                E = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
                return torch.allclose(inflation(E, 1.5).std(0), 1.5 * E.std(0))
            """,
            "not around zero",
        ),
        (
            """
            def test_inflate(inflation):
                E = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
                return inflation(E, 1.5).std(0) > E.std(0)
            """,
            "is an `.all()` missing",
        ),
        (
            """
            answers = [True, False] * 20  # as unseeded numbers would give them

            def test_inflate(inflation):
                return answers.pop()
            """,
            "fix its random numbers",
        ),
    ],
    "catch_mirror": [
        (
            """
            def test_tendency(tendency):
                x = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
                return abs((x * (tendency(x) + x - 8)).sum()) < 1e-9
            """,
            "the mirror image",
        ),
        (
            """
            def test_tendency(tendency):
                x = torch.zeros(8, dtype=torch.float64)
                x[2:4] = torch.tensor([1.0, 2.0])  # only the mirror image puts their product at place 1
                return tendency(x)[1] == 8
            """,
            "changed places",
        ),
        (
            """
            def test_tendency(tendency):
                x = torch.zeros(8, dtype=torch.float64)
                x[3], x[4], x[6] = 1, 2, 3
                return tendency(x)[5] == (3 - 1) * 2 + 8
            """,
            "without the friction",
        ),
        ("def test_tendency(tendency): return tendency(torch.ones(8)).sum() == 0", "no to everything"),
    ],
}
