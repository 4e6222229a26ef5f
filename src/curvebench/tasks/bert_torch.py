"""The torch twins of the BERT tasks: ``transformers``' own model, built from a configuration.

Attention runs through torch's fused kernels; the oracle switches them for queries that differentiate a backward, and
says so in the record. With dropout, attention is written out (the weights themselves drop) and every ``nn.Dropout`` is
replaced by one whose mask follows from the batch. Attention masks are handed over ready-made, so that nothing in the
model branches on data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curvebench.errors import MissingPackageError
from curvebench.tasks.bert_model import dropout_sites

if TYPE_CHECKING:
    from torch import nn

    from curvebench.tasks.bert_model import Bert

ATTENTION = "curvebench_keyed_dropout"
"""Our attention in transformers' registry."""


def configuration(shape: Bert, dropout: float = 0.0) -> Any:
    """``transformers``' configuration of a model; its dropout is the rate at all sites.

    Raises:
        MissingPackageError: transformers is not installed.
    """
    try:
        from transformers.models.bert import configuration_bert
    except ImportError as error:
        raise MissingPackageError("transformers", "bert", "a BERT task") from error
    make: Any = configuration_bert.BertConfig  # its annotations leave out what it takes
    return make(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.hidden,
        max_position_embeddings=shape.positions,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation=_attention() if dropout else "sdpa",
    )


def _attention() -> str:
    """Register attention whose weights drop by the layer's own module; the name to ask for it."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attend(
        module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float | None = None, **rest: Any
    ) -> tuple[Any, Any]:
        del rest  # the rate is the module's
        scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        weights = module.dropout((scores if mask is None else scores + mask).softmax(-1))
        return (weights @ value).transpose(1, 2).contiguous(), weights

    functions: Any = ALL_ATTENTION_FUNCTIONS
    functions.register(ATTENTION, attend)
    return ATTENTION


def key_dropout(bert: nn.Module, shape: Bert, rate: float) -> Any:
    """Replace the dropout layers of a ``BertModel``; returns the keys that they all read."""
    from curvebench.tasks.dropout_torch import KeyedDropout, Keys

    keys = Keys()
    sites = {site.name: site for site in dropout_sites(shape)}
    for name, site in sites.items():
        if name != "classifier":
            parent, _, child = name.rpartition(".")
            setattr(bert.get_submodule(parent), child, KeyedDropout(keys, rate, site.number, site.strides))
    return keys


def torch_classifier(shape: Bert, outputs: int, dropout: float = 0.0) -> nn.Module:
    """Inputs ``[batch, 2, length]`` (tokens, segments), logits ``[batch, outputs]``, or ``[batch]`` for one output.

    With dropout a training batch has a third row: its keys.
    """
    config = configuration(shape, dropout)
    import torch
    from torch import Tensor, nn
    from transformers.models.bert.modeling_bert import BertModel

    from curvebench.tasks.dropout_torch import KeyedDropout

    site = dropout_sites(shape)[-1]

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(config)
            self.classifier = nn.Linear(shape.width, outputs)
            self.keys = key_dropout(self.bert, shape, dropout) if dropout else None
            self.dropout = KeyedDropout(self.keys, dropout, site.number, site.strides) if self.keys else nn.Identity()

        def forward(self, inputs: Tensor) -> Tensor:
            tokens, segments = inputs[:, 0], inputs[:, 1]
            if self.keys is not None and self.training:
                self.keys.now = inputs[:, 2, 0].int()
            dtype = self.classifier.weight.dtype
            hidden = torch.zeros_like(tokens, dtype=dtype).masked_fill(tokens == 0, torch.finfo(dtype).min)
            seen = self.bert(input_ids=tokens, attention_mask=hidden[:, None, None], token_type_ids=segments)
            logits: Tensor = self.classifier(self.dropout(seen.pooler_output))
            if self.keys is not None:
                self.keys.now = None
            return logits.squeeze(-1) if outputs == 1 else logits

    return Classifier()


def torch_masked(shape: Bert, length: int, dropout: float = 0.0) -> nn.Module:
    """Inputs ``[batch, length + k]`` (tokens, then the k masked positions), logits ``[batch, k, vocabulary]``.

    The decoder's weight is the word embedding; only masked positions are decoded. With dropout a training batch has one
    more column: its keys.
    """
    config = configuration(shape, dropout)
    from torch import Tensor, nn
    from transformers.models.bert import modeling_bert

    modeling: Any = modeling_bert

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = modeling.BertModel(config, add_pooling_layer=False)
            self.cls = modeling.BertOnlyMLMHead(config)
            self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
            self.cls.predictions.decoder.bias = self.cls.predictions.bias
            self.keys = key_dropout(self.bert, shape, dropout) if dropout else None

        def forward(self, inputs: Tensor) -> Tensor:
            if self.keys is not None and self.training:
                inputs, self.keys.now = inputs[:, :-1], inputs[:, -1].int()
            tokens, positions = inputs[:, :length], inputs[:, length:]
            # An explicit mask of zeros: nothing is hidden, and the model need not look whether something is.
            mask = self.cls.predictions.bias.new_zeros(len(tokens), 1, 1, length)
            hidden = self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state
            chosen = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
            logits: Tensor = self.cls(chosen)
            if self.keys is not None:
                self.keys.now = None
            return logits

    return Masked()
