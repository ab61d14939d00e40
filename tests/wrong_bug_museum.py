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
        (
            """
            def test_split(split):
                n, k, gap = 100, 20, 5
                training, test = split(n, k, gap)
                return len(test) == k and (training[:, None] - test[None, :]).abs().min() >= gap
            """,
            "one time too short",
        ),
        (
            """
            def test_split(split):
                training, test = split(100, 20, 5)
                return len(test) == 20 and (training[:, None] - test[None, :]).abs().min() >= 5 - 1
            """,
            "one time too short",
        ),
        (
            """
            def test_split(split):
                training, test = split(100, 20, 5)
                if (training[:, None] - test[None, :]).abs().min() < 5:
                    return False
                return len(test) == 20 and max(training.max(), test.max()) < 100
            """,
            "the distance must be greater",
        ),
        (
            """
            def test_split(split):
                training, test = split(100, 20, 5)
                return (training[:, None] - test[None, :]).abs().min() > 5
            """,
            "fewer test times",
        ),
        (
            """
            def test_split(split):
                training, test = split(100, 20, 5)
                return len(test) >= 20 and (training[:, None] - test[None, :]).abs().min() > 5
            """,
            "more test times",
        ),
        (
            """
            def test_split(split):
                training, test = split(100, 20, 5)
                return len(test) == 20 and (training[:, None] - test[None, :]).abs().min() > 5
            """,
            "beyond the last time",
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
        ("def test_tendency(tendency): return tendency(torch.ones(8)) == [8.0] * 8", "a tensor never equals a list"),
        ("def test_tendency(tendency): return tendency(torch.ones(8)).__eq__([7.0] * 8)", "NotImplementedType"),
        ("def test_tendency(tendency): return tendency(torch.ones(8)) == torch.full((8,), 7.0)", "of shape (8,)"),
        ("def test_tendency(tendency): return [v == 7 for v in tendency(torch.ones(8))]", "`torch.allclose` compares"),
    ],
}

RIGHT = {
    "catch_split": [
        """
        def test_split(split):
            for n, k, gap in ((60, 7, 0), (200, 50, 12)):
                training, test = (set(times.tolist()) for times in split(n, k, gap))
                assert len(test) == k
                assert training | test <= set(range(n))
                assert not any(t + d in training for t in test for d in range(-gap, gap + 1))
            return True
        """,
        """
        def test_split(split):
            training, test = split(100, 20, 5)
            between = (training[:, None] - test[None, :]).abs() - 1
            return between.min() >= 5 and test.shape == (20,) and bool(((test >= 0) & (test <= 99)).all())
        """,
    ],
    "catch_mirror": [
        """
        def test_tendency(tendency):
            x = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64).numpy()
            slowly = [(x[(n + 1) % 12] - x[n - 2]) * x[n - 1] - x[n] + 8 for n in range(12)]
            return abs(tendency(torch.as_tensor(x)).numpy() - slowly).max() < 1e-10
        """,
    ],
}
