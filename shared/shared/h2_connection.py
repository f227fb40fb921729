"""HTTP/2 (RFC 9113) by the library h2, with what we need of it otherwise: for the server and for the client."""

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.events import Event
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame

# Fields of HTTP/1.1 that mean one connection, and that HTTP/2 forbids (8.2.2).
OF_ONE_CONNECTION = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}

# h2 describes every frame for a log that nobody keeps, and this kind in hexadecimal, byte by byte: half of its time.
DataFrame.__repr__ = object.__repr__  # type: ignore[method-assign]


class Connection(H2Connection):
    """h2 takes a GOAWAY for the end of everything. It announces the end: what is under way goes on (RFC 9113, 6.8)."""

    def __init__(self, *, client: bool, settings: dict[SettingCodes, int]) -> None:
        super().__init__(H2Configuration(client_side=client, header_encoding=None))
        self.state_machine = _States()
        self.local_settings = Settings(client=client, initial_values=settings)
        self.max_inbound_frame_size = self.local_settings.max_frame_size

    def clear_outbound_data_buffer(self) -> None:
        """Called on a GOAWAY alone."""


class _States(H2ConnectionStateMachine):
    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        if input_ in (ConnectionInputs.SEND_GOAWAY, ConnectionInputs.RECV_GOAWAY):
            return []
        return super().process_input(input_)
