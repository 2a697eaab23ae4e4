"""The studies page: records that ship or that a user made, drawn as the paper's figures, run by run."""
