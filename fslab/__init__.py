"""fslab: the open face-swap lab. Footage of two people in, a swapped, marked and measured video out.

Read the modules in the order the data flows: media, geometry, faces, tracking, extract, dataset, model, losses, train,
blend, swap, video, evaluate; consent and provenance go with it from the first frame to the last.

Conventions, valid in every module (a docstring says only what differs):

    Frames and crops   NumPy (H, W, 3) uint8 RGB. BGR exists only inside `fslab.media`.
    Batches            torch (B, 3, H, W) float32 RGB in [0, 1]; masks (B, 1, H, W) in [0, 1], 1 = face.
    Points, boxes      (x, y) pixels, float32; (0, 0) is the centre of the top-left pixel. Boxes are (x0, y0, x1, y1).
    Landmarks          (5, 2): left eye, right eye, nose tip, left and right mouth corner. Mesh: (468, 3), z as x.
    Left, right        as seen in the picture, not the person's own.
    Sizes              (height, width). A crop is square and its size is one int.
    Matrices           (2, 3) similarity, frame -> crop, pixels; the inverse takes crop -> frame.
    Coverage           share of the crop's side that the face template spans.
    Angles, time       degrees; seconds. Frame indices start at 0.
    Randomness         an explicit generator or seed. Devices: functions run where their inputs are.
"""

__version__ = "0.1.0"
