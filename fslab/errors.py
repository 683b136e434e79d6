"""What can go wrong in the world outside the code, each told in one line: expected, found, what to do."""


class FslabError(Exception):
    """A state of the world the user can mend. The CLI prints it and exits with 2."""

    def __init__(self, expected: str, found: str, fix: str):
        """Build the one-line message.

        Args:
            expected: what was needed, as a noun phrase ("a video file").
            found: what was there instead ("'a.mp4' is empty").
            fix: what to do, as an imperative without a full stop ("record it again").
        """
        super().__init__(expected, found, fix)
        self.expected, self.found, self.fix = expected, found, fix

    def __str__(self) -> str:
        return f"expected {self.expected}, found {self.found}; {self.fix}."


class MediaError(FslabError):
    """An image or video that cannot be read or written."""


class OutputError(FslabError):
    """A place that cannot be written to: exists already, no permission, no space."""


class NoFaceFound(FslabError):
    """Footage without a usable face, or without the person asked for."""


class ConsentError(FslabError):
    """No valid consent for a person in the work at hand."""


class FaceSetError(FslabError):
    """A face set folder that is missing, damaged or does not fit."""


class RunError(FslabError):
    """A run folder that is missing, damaged or does not fit."""
