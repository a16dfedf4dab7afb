package main

import (
	"errors"
	"io"
	"net"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"

	"epcscf/bench/internal/subject"
)

// pionMode as the first argument makes this program a pion/turn server as it comes.
const pionMode = "pion-process"

func pion() contender {
	return contender{
		name: "pion/turn v3", credential: restCredential,
		start: func() (*server, error) { return fromSubject(subject.Start(pionMode)) },
	}
}

// pionRun serves until its standard input ends.
func pionRun(_ []string, in io.Reader, out io.Writer) error {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	logs := logging.NewDefaultLoggerFactory()
	logs.DefaultLogLevel = logging.LogLevelDisabled
	srv, err := turn.NewServer(turn.ServerConfig{
		Realm: realm, LoggerFactory: logs, AuthHandler: turn.LongTermTURNRESTAuthHandler(restSecret, logs.NewLogger("auth")),
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn: pc,
			RelayAddressGenerator: &turn.RelayAddressGeneratorPortRange{
				RelayAddress: net.IPv4(127, 0, 0, 1), Address: "127.0.0.1", MinPort: minPort, MaxPort: maxPort, MaxRetries: 100,
			},
		}},
	})
	if err != nil {
		return errors.Join(err, pc.Close())
	}
	return errors.Join(subject.Obey(in, out, pc.LocalAddr().String()), srv.Close())
}
