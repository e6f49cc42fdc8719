"""Registers our classes with the Auto classes of transformers, without importing transformers.

No Hugging Face library looks for plugins, so `import solami_hf` has to register; but importing transformers takes over
a second and `import solami_hf` must not. Hence an import hook: it notices when one of the Auto modules is imported, by
whomever, and registers then. Auto modules are often imported in the middle of another transformers module, or of one
of ours, when the classes we need are only half defined. So registration waits until the outermost import of
transformers or solami_hf code is through; nothing outside can have used the Auto classes before that.
"""

import importlib
import logging
import sys
import threading
from importlib.machinery import ModuleSpec

logger = logging.getLogger(__name__)

_AUTO = "transformers.models.auto."
_WATCHED = ("transformers.", "solami_hf.")

_SOLAMI = "modeling.configuration_solami.SolamiConfig"
_MOTION_VQ = "modeling.configuration_motion_vq.SolamiMotionVQConfig"
_SPEECH_CODEC = "modeling.configuration_speech_codec.SolamiSpeechCodecConfig"
_SOUNDSTORM = "modeling.configuration_soundstorm.SolamiSoundStormConfig"

# Auto module -> rows of (Auto class, our configuration, our class under that configuration).
_CLASSES = {
    f"{_AUTO}configuration_auto": [
        ("AutoConfig", _SOLAMI, None),
        ("AutoConfig", _MOTION_VQ, None),
        ("AutoConfig", _SPEECH_CODEC, None),
        ("AutoConfig", _SOUNDSTORM, None),
    ],
    f"{_AUTO}modeling_auto": [
        ("AutoModel", _SOLAMI, "modeling.modeling_solami.SolamiModel"),
        ("AutoModelForCausalLM", _SOLAMI, "modeling.modeling_solami.SolamiForCausalLM"),
        ("AutoModel", _MOTION_VQ, "modeling.modeling_motion_vq.SolamiMotionVQModel"),
        ("AutoModel", _SPEECH_CODEC, "modeling.modeling_speech_codec.SolamiSpeechCodecModel"),
        ("AutoModel", _SOUNDSTORM, "modeling.modeling_soundstorm.SolamiSoundStormModel"),
    ],
    f"{_AUTO}processing_auto": [("AutoProcessor", _SOLAMI, "processing.processing_solami.SolamiProcessor")],
}

# Tables in which transformers looks classes up by their names. Trainer shifts the labels that it smooths for those of
# the second one only, so without an entry it would train on the wrong tokens.
_NAMES = {"MODEL_MAPPING_NAMES": "SolamiModel", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "SolamiForCausalLM"}


def _load(path: str) -> type:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(f"{__package__}.{module}"), name)


def _register(auto_class: type, config_path: str, class_path: str | None) -> None:
    config = _load(config_path)
    if class_path is None:
        auto_class.register(config.model_type, config, exist_ok=True)
    else:
        auto_class.register(config, _load(class_path), exist_ok=True)


class _AutoImportHook:
    """A meta-path finder that finds nothing itself: it only learns when a watched import begins and ends."""

    def __init__(self):
        self._waiting = dict(_CLASSES)
        self._lock = threading.RLock()
        self._state = threading.local()

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if not name.startswith(_WATCHED):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self or not hasattr(finder, "find_spec") else finder.find_spec(name, path, target)
            if spec is not None:
                self._watch(spec)
                return spec
        return None

    def _watch(self, spec: ModuleSpec) -> None:
        """Put a bracket around the module's execution; the loader keeps its class, as `inspect` needs it."""
        loader = spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is None:
            return

        def exec_module(module):
            self._state.depth = getattr(self._state, "depth", 0) + 1
            try:
                execute(module)
            finally:
                self._state.depth -= 1
            if self._state.depth == 0:
                self.run_due()

        try:
            loader.exec_module = exec_module
        except AttributeError:  # a loader without instance attributes cannot be watched; the next one will do
            logger.debug("cannot watch the import of %s", spec.name)

    def run_due(self) -> None:
        """Register with every Auto module that is imported by now; the hook goes when all are done."""
        with self._lock:
            # Registering imports more modules, which comes back here: popping first makes that harmless.
            while due := next((name for name in self._waiting if name in sys.modules), None):
                rows = self._waiting.pop(due)
                for table, name in _NAMES.items() if due.endswith("modeling_auto") else ():
                    getattr(sys.modules[due], table)["solami"] = name
                for auto_name, *paths in rows:
                    try:
                        _register(getattr(sys.modules[due], auto_name), *paths)
                    except (ImportError, AttributeError) as error:
                        # Somebody's `from transformers import AutoModel` must not fail because of us.
                        logger.warning(
                            "could not register %s with %s (%s: %s); reinstall solami_hf with its dependencies",
                            paths[-1] or paths[0],
                            auto_name,
                            type(error).__name__,
                            error,
                        )
            if not self._waiting and self in sys.meta_path:
                sys.meta_path.remove(self)


def install() -> None:
    """Register now with the Auto modules already imported, and with the others when they are."""
    hook = _AutoImportHook()
    sys.meta_path.insert(0, hook)
    hook.run_due()
