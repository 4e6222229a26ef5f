"""The torch twins of the BERT tasks: ``transformers``' own model, built from a configuration, without dropout.

Attention runs through torch's fused kernels; the oracle switches them for queries that differentiate a backward, and
says so in the record. Masks are handed over ready-made, so that nothing in the model branches on data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curvebench.errors import MissingPackageError

if TYPE_CHECKING:
    from torch import nn

    from curvebench.tasks.bert_model import Bert


def configuration(shape: Bert) -> Any:
    """``transformers``' configuration of a model.

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
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )


def torch_classifier(shape: Bert, outputs: int) -> nn.Module:
    """Inputs ``[batch, 2, length]`` (tokens, segments), logits ``[batch, outputs]``, or ``[batch]`` for one output."""
    config = configuration(shape)
    import torch
    from torch import Tensor, nn
    from transformers.models.bert.modeling_bert import BertModel

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(config)
            self.classifier = nn.Linear(shape.width, outputs)

        def forward(self, inputs: Tensor) -> Tensor:
            tokens, segments = inputs[:, 0], inputs[:, 1]
            dtype = self.classifier.weight.dtype
            hidden = torch.zeros_like(tokens, dtype=dtype).masked_fill(tokens == 0, torch.finfo(dtype).min)
            seen = self.bert(input_ids=tokens, attention_mask=hidden[:, None, None], token_type_ids=segments)
            logits: Tensor = self.classifier(seen.pooler_output)
            return logits.squeeze(-1) if outputs == 1 else logits

    return Classifier()


def torch_masked(shape: Bert, length: int) -> nn.Module:
    """Inputs ``[batch, length + k]`` (tokens, then the k masked positions), logits ``[batch, k, vocabulary]``.

    The decoder's weight is the word embedding; only masked positions are decoded.
    """
    config = configuration(shape)
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

        def forward(self, inputs: Tensor) -> Tensor:
            tokens, positions = inputs[:, :length], inputs[:, length:]
            # An explicit mask of zeros: nothing is hidden, and the model need not look whether something is.
            mask = self.cls.predictions.bias.new_zeros(len(tokens), 1, 1, length)
            hidden = self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state
            chosen = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
            logits: Tensor = self.cls(chosen)
            return logits

    return Masked()
