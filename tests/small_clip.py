"A CLIP of two layers with random weights, in the folder format of open_clip, tokenizer included."
import json

import torch


def byte_tokenizer():
    "Byte pairs, so that it knows every script; the mark of the end has the highest number, as CLIP wants."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "<start>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(["a dog in the snow", "a cat on the grass"], trainer)
    tokenizer.add_special_tokens(["<end>"])
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing("<start> $A <end>", special_tokens=marks)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>")


def write_small_clip(folder):
    "Write one; gives the folder."
    import open_clip
    from safetensors.torch import save_file

    tokenizer = byte_tokenizer()
    config = {"embed_dim": 24, "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
              "text_cfg": {"context_length": 32, "vocab_size": len(tokenizer), "width": 32, "heads": 2, "layers": 2, "hf_tokenizer_name": "bytes"}}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}}))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return folder
