"""Synthetic people with exact truth: seeds become people, people become footage, and everything about it is known.

Read in the order the data flow: `scene` (what is rendered); `assets`, `identity`, `head`, `truth`, `points` (who it
is); `motion`, `ranges` (what they do); `render`, `annotate` (frames and labels); `degrade`, `occluders`, `voice` (what
stands between); `takes`, `clip`, `pair`, `faces`, `portrait` (what comes out). Everyone is made up: adults, clothed,
drawn from CC0 assets. The same seeds give the same frames, byte for byte.

    from fslab.synth.clip import ClipConfig, render_clip
    from fslab.synth.pair import Pair, PairConfig, render_pair
    from fslab.synth.faces import FacesConfig, render_faces
    from fslab.synth.portrait import PortraitConfig, render_portrait
"""
