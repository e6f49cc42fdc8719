"""`solami prepare chat --synthesize MOTIONS --output FOLDER`: multimodal dialogues from topics and motion captions.

A language model writes scripts: topics and characters in, lines with spoken words, mood and movement out. For each
movement the captured motion is taken whose caption lies nearest, and each line is spoken by a TTS function. The result
is a manifest folder, which `solami prepare chat FOLDER` turns into tokens as it does with recorded dialogues.

    FOLDER/manifest.jsonl    the dialogues, see `solami prepare --help`
    FOLDER/rejected.jsonl    what could not be used: reason, and the model's answers as they came
    FOLDER/report.json       counts, tokens, similarities
    FOLDER/wav, FOLDER/motion
    FOLDER/cache             the model's answers; delete it to have everything written anew

Run again, the command asks and speaks only what is missing: a killed run goes on, and `--num_dialogues` can be raised.

| module | what |
|---|---|
| `scripts` | plans of dialogues (`topics.txt`, `characters.yaml`), what is asked (`prompts.yaml`), what is accepted |
| `writers` | an OpenAI-compatible endpoint, a local model, the cache |
| `lines` | answers of a small model to authored lines (`visitor_lines.yaml`) |
| `asking` | asks until an answer can be used, for many questions at once |
| `motions` | the motions that there are, and which lies nearest to a description |
| `command` | all of it, speech too |
"""

from .command import SynthesizeArguments, main, synthesize

__all__ = ["SynthesizeArguments", "main", "synthesize"]
