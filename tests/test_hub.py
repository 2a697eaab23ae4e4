"""Folders of the Hugging Face Hub, without the Hub."""

import pytest
import torch

from sciml_fm_core import load_operator
from sciml_fm_core.models.fno import FNO, FNOConfig
from sciml_fm_core.models.hub import FILE, from_pretrained, model_card, save_pretrained
from sciml_fm_core.models.normalization import FieldsNormalization
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.unknown import UnknownSystem


def test_a_folder_holds_the_operator_and_its_card(tmp_path):
    pytest.importorskip("huggingface_hub")
    operator = load_operator("sys-1")
    save_pretrained(operator, tmp_path / "sys-1")
    assert (tmp_path / "sys-1" / FILE).is_file()
    written, made = (
        (text.split("---")[-1]) for text in ((tmp_path / "sys-1" / "README.md").read_text(), model_card(operator))
    )
    assert written.strip() == made.strip()
    back = from_pretrained(tmp_path / "sys-1")
    assert back.digest == operator.digest
    assert all(map(torch.equal, back.model.parameters(), operator.model.parameters()))


def test_a_folder_without_a_bundle_is_one_clear_line(tmp_path):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(ValueError, match="no such file"):
        from_pretrained(tmp_path)


def test_the_card_of_given_fields_claims_no_equation():
    given = FieldsNormalization((UnknownSystem(["a"], ["u"], ["nu"]),), [0, 0, 0], [1, 1, 1])
    operator = Operator(FNO.create(FNOConfig(2, width=4, modes=2), torch.Generator()), given)
    operator.card["errors"] = {"own.npz, test": 0.1}
    card = model_card(operator)
    for said in ("takes a, nu to u", "examples of given fields", "| own.npz, test | 10.00% | in range |"):
        assert said in card
    assert "solve" not in card.split("Errors are")[0]


def test_the_card_says_where_an_operator_is_good():
    card = model_card(load_operator("sys-1"))
    for said in ("license: mit", "SYS-1(1,5)", "in range", "out of range", "arXiv:2306.00258"):
        assert said in card
