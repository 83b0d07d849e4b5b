"""CSV: what is a header, a separator, a label, and what is refused, by line and column."""

import numpy as np
import pytest
import torch

from lowerbound.data import load_rows
from lowerbound.distributions.support import Binary, Discrete, Real
from lowerbound.errors import InputError


def written(folder, text, name="t.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "1,2.5\n3,4\n",
        "1;2.5\n3;4",
        "1\t2.5\r\n3\t4\r\n",
        "\ufeff1,2.5\n3,4\n",
        "\n1,2.5\n\n3,4\n\n",
        '"1","2.5"\n"3"," 4 "\n',
        "+1,25e-1\n3.,4\n",
    ],
)
def test_the_same_numbers(tmp_path, text):
    rows = load_rows(written(tmp_path, text))
    assert rows.x.tolist() == [[1, 2.5], [3, 4]]
    assert rows.x.dtype == torch.float32
    assert rows.support == Real()
    assert rows.column_names == ("column 0", "column 1")


@pytest.mark.parametrize("header", ["a,b", '"a","b"', " a , b ", "\ufeffa,b"])
def test_header(tmp_path, header):
    rows = load_rows(written(tmp_path, f"{header}\n1,2\n3,4\n"))
    assert rows.column_names == ("a", "b")
    assert rows.x.tolist() == [[1, 2], [3, 4]]


def test_separator_inside_quotes(tmp_path):
    rows = load_rows(written(tmp_path, '"a, b, c and d";e\n1;2\n'))
    assert rows.column_names == ("a, b, c and d", "e")


def test_support_of_tables(tmp_path):
    path = written(tmp_path, "a,b\n0,1\n1,1\n")
    assert load_rows(path).support == Binary()
    path = written(tmp_path, "a,b\n0,1\n7,1\n")
    assert load_rows(path).support == Real()
    assert load_rows(path, support="discrete:8").support == Discrete(8)


@pytest.mark.parametrize("name", ["label", "Labels", "CLASS", "y", "target"])
@pytest.mark.parametrize(
    ("cells", "indices", "names"),
    [
        (("0", "1", "0"), [0, 1, 0], ()),
        (("5", "-2", "5"), [1, 0, 1], ("-2", "5")),
        (("cat", "ant", "cat"), [1, 0, 1], ("ant", "cat")),
    ],
)
def test_labels_found_by_name(tmp_path, name, cells, indices, names):
    body = "".join(f"1.5,{cell},{i}\n" for i, cell in enumerate(cells))
    rows = load_rows(written(tmp_path, f"a,{name},b\n{body}"))
    assert rows.column_names == ("a", "b")
    assert rows.labels.tolist() == indices
    assert rows.class_names == names
    assert any(name in w and "taken as labels" in w for w in rows.warnings)


def test_labels_named_by_the_caller(tmp_path, refused):
    path = written(tmp_path, "a,species,z\n1,ant,0.5\n2,bee,1.5\n")
    reals = written(tmp_path, "a,z\n1,0.5\n", "reals.csv")
    rows = load_rows(path, labels="species")
    assert rows.class_names == ("ant", "bee")
    assert rows.x.tolist() == [[1, 0.5], [2, 1.5]]
    refused(path, "'species'", "'ant'", "line 2", "labels")
    refused(path, "'labels'", "did you mean 'species'?", labels="specie")
    refused(reals, "'labels'", "integers or text", "'z'", labels="z")
    refused(written(tmp_path, "a,k\n1,7\n2,\n"), "column 'k', line 3", labels="k")
    assert load_rows(written(tmp_path, "1,7\n2,8\n"), labels="column 1").labels.tolist() == [0, 1]


def test_real_target_stays_a_column(tmp_path, refused):
    rows = load_rows(written(tmp_path, "a,y,b\n1,0.5,2\n3,1.5,4\n"))
    assert rows.labels is None
    assert rows.column_names == ("a", "y", "b")
    assert rows.x.tolist() == [[1, 0.5, 2], [3, 1.5, 4]]
    refused(written(tmp_path, "a,y\n1,0.5\n3,\n"), "line 3", "'y'", "1 missing")


def test_constant_columns_are_named(tmp_path):
    assert "'b'" in load_rows(written(tmp_path, "a,b\n1,2\n3,2\n")).warnings[0]


BAD = {
    "empty": ("", "at least one row"),
    "blank": ("\n\n", "at least one row"),
    "only a header": ("a,b\n", "at least one row"),
    "only labels": ("label\n1\n2\n", "beside the labels"),
    "missing": ("a,b\n1,2\n3,\n,4\n", "2 missing, NaN or infinite, first in line 3, column 'b'"),
    "NA": ("a,b\n1,NA\n", "line 2, column 'b'"),
    "nan": ("1,nan\n", "line 1, column 'column 1'"),
    "inf": ("a,b\n-inf,1\n", "line 2, column 'a'"),
    "too large": ("a,b\n1e39,1\n", "32-bit"),
    "overflow": ("a,b\n1e999,1\n", "line 2, column 'a'"),
    "ragged": ("a,b\n1,2\n3\n", "1 cells in line 3"),
    "ragged long": ("a,b\n1,2,3\n", "3 cells in line 2"),
    "text": ("a,b\n1,2\n3,x y\n", "'x y' in column 'b', line 3"),
    "underscore": ("a,b\n1,1_000\n", "'1_000'"),
    "decimal comma": ("a;b\n1;2,5\n", "'2,5'"),
    "twice": ("a,a\n1,2\n", "2 of 'a'"),
    "no label": ("a,y\n1,cat\n2,\n", "column 'y', line 3"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "UTF-8"),
    "UTF-16 without mark": ("a,b\n1,2\n".encode("utf-16-le"), "zero byte in line 1"),
    "Latin-1": ("größe,b\n1,2\n".encode("latin-1"), "UTF-8"),
    "binary": (bytes(range(256)), "UTF-8"),
    "long line": ("1," * 600_000, "more in line 1"),
    "long cell": ("a,b\n1," + "9" * 200_000 + "\n", "field"),
    "open quote": ('a,b\n1,"2\n3,4\n', "line"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(tmp_path, refused, case):
    text, words = BAD[case]
    refused(written(tmp_path, text), "t.csv", words)


def test_names_cannot_break_the_line(tmp_path, refused):
    message = refused(written(tmp_path, '"a\nb\x1b[31m",c\nx,1\n'), r"a\nb\x1b")
    assert "\x1b" not in message


def test_many_rows_keep_their_order(tmp_path):
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    np.savetxt(tmp_path / "t.csv", x, delimiter=",", header="a,b,c", comments="")
    assert np.array_equal(load_rows(tmp_path / "t.csv").x.numpy(), x)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a,species\n1,cat\n2,dog\n", "drop the column, or say --labels species if it holds"),
        ("a,the kind\n1,cat\n2,dog\n", "--labels 'the kind' if"),
        ("a,species\n1,2\n2,cat\n", "mend or drop that row"),
        ("y,species\n1,cat\n2,dog\n", "drop the column; the labels are 'y'"),
    ],
)
def test_what_to_do_about_text_depends_on_where_it_is(tmp_path, text, remedy):
    with pytest.raises(InputError, match=r"must be a table of numbers, got '(cat|dog)'") as caught:
        load_rows(written(tmp_path, text))
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "say"),
    [
        ({"a": [3, 0, 7], "b": [1, 2, 2]}, "counts"),
        ({"a": [3, 0, 7], "b": [0, 1, 0]}, "counts"),
        ({"a": [3, 0, 7], "b": [0.5, 1, 0], "c": [0, 1, 0]}, "product:counts,real,binary"),
        ({"a": [3, 0, 7], "b": [-1, 4, 2]}, "product:counts,real"),
    ],
)
def test_columns_that_may_be_counts_are_named_and_the_remedy_works(tmp_path, columns, say):
    cells = zip(*columns.values(), strict=True)
    text = "\n".join([",".join(columns), *(",".join(map(str, row)) for row in cells)])
    path = written(tmp_path, text)
    (sentence,) = load_rows(path).warnings
    assert f"--support {say} " in sentence
    assert ("'a'" in sentence) == (say != "counts")
    assert "'b'" not in sentence
    remedied = load_rows(path, support=say)
    assert str(remedied.support) == say
    assert remedied.warnings == ()


def test_what_cannot_be_counts_is_not_spoken_of(tmp_path):
    x = np.array([[0.5, -3, 0, 5], [1, 2, 1, 5], [2, 4, 1, 5]])
    warnings = load_rows(written(tmp_path, "\n".join(",".join(map(str, row)) for row in x)))
    assert not [w for w in warnings.warnings if "counts" in w]
    for name, other in (
        ("bytes", np.arange(12, dtype=np.uint8).reshape(3, 4)),
        ("images", np.arange(48).reshape(3, 4, 4)),
        ("one", np.arange(4).reshape(1, 4)),
    ):
        np.save(tmp_path / f"{name}.npy", other)
        assert not [w for w in load_rows(tmp_path / f"{name}.npy").warnings if "counts" in w]


def test_integers_of_an_array_that_are_taken_for_levels_may_be_counts_too(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[3, 0], [7, 20]]))
    rows = load_rows(tmp_path / "x.npy")
    assert rows.support == Discrete(21)
    assert rows.warnings == (
        "Whole numbers are taken as discrete:21; if they are counts, --support counts says so.",
    )
