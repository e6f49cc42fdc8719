"""Files are encoded once, whatever they are handed over in."""

import soundfile

from solami_hf.processing.datasets.prepare_rows import Media, MediaFile
from solami_hf.processing.motion.motion_io import write_motion


def test_an_iterator_gives_motions_and_sounds(tmp_path, tiny_processor, small_motion, small_sound):
    write_motion(tmp_path / "a.npz", small_motion)
    soundfile.write(tmp_path / "a.wav", small_sound, 16000)
    files = [MediaFile("motion", "a.npz"), MediaFile("audio", "a.wav"), MediaFile("motion", "a.npz")]
    media = Media(tmp_path, tiny_processor, 2)
    from_list, from_iterator = media.encode(files), media.encode(iter(files))
    assert {kind for kind, *_ in from_iterator} == {"motion", "audio"} and from_iterator.keys() == from_list.keys()
