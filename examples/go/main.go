// Draws a picture over gRPC, with stubs generated from proto/ (README.md beside this file).
//
//	build/imagine -seed 7 "a green star on a white background" star.png
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	image "mobula/image/v1"
)

// A PNG of 2048 x 2048 may take twelve; gRPC's own limit is four.
const maxMessageBytes = 32 << 20

const bar = 30

func main() {
	server := flag.String("server", "127.0.0.1:9000", "host:port")
	seed := flag.Int64("seed", -1, "the same seed draws the same picture; one is drawn by default")
	steps := flag.Uint("steps", 0, "denoising steps, by default the model's")
	timeout := flag.Duration("timeout", time.Minute, "how long to wait")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: %s [flags] PROMPT FILE\n", os.Args[0])
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	request := &image.GenerateRequest{Prompt: flag.Arg(0)}
	if *seed >= 0 {
		request.Seeds = []uint64{uint64(*seed)}
	}
	if *steps > 0 {
		wanted := uint32(*steps)
		request.Steps = &wanted
	}
	// Leaving ends the request at the server too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if err := draw(ctx, *server, request, flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, explain(err, *server))
		os.Exit(1)
	}
}

// draw asks for the picture and writes it into a file.
func draw(ctx context.Context, server string, request *image.GenerateRequest, file string) error {
	connection, err := grpc.Dial(server, grpc.WithInsecure(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)))
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := image.NewImageServiceClient(connection).Generate(ctx, request)
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch event := response.Event.(type) {
		case *image.GenerateResponse_Step:
			progress(event.Step)
		case *image.GenerateResponse_Image:
			drawn := event.Image
			if err := os.WriteFile(file, drawn.Data, 0o644); err != nil {
				return err
			}
			fmt.Printf("%s: %d x %d, seed %d, sha256 %s\n", file, drawn.Width, drawn.Height, drawn.Seed, drawn.Digest)
		}
	}
}

// progress draws a bar on a terminal; elsewhere it would only fill a log.
func progress(step *image.Step) {
	about, err := os.Stderr.Stat()
	if err != nil || about.Mode()&os.ModeCharDevice == 0 || step.Of == 0 {
		return
	}
	done := int(bar * step.Index / step.Of)
	end := ""
	if step.Index == step.Of {
		end = "\n"
	}
	fmt.Fprintf(os.Stderr, "\r[%s%s] step %d of %d%s",
		strings.Repeat("#", done), strings.Repeat(".", bar-done), step.Index, step.Of, end)
}

// explain says what went wrong in words: google.rpc's details where the server sent them.
func explain(err error, server string) string {
	told, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	said, lines := fmt.Sprintf("%s: %s", told.Code(), told.Message()), []string{}
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			// The message says the same in one line.
			said = told.Code().String()
			for _, wrong := range detail.FieldViolations {
				lines = append(lines, fmt.Sprintf("  %s: %s", wrong.Field, wrong.Description))
			}
		case *errdetails.RetryInfo:
			lines = append(lines, fmt.Sprintf("  try again in %s", detail.RetryDelay.AsDuration()))
		case *errdetails.ErrorInfo:
			lines = append(lines, fmt.Sprintf("  reason %s (%s)", detail.Reason, detail.Domain))
		}
	}
	if told.Code() == codes.Unavailable && len(told.Details()) == 0 {
		lines = append(lines, fmt.Sprintf("  nobody answers at %s; `mobula up` starts a mesh", server))
	}
	return strings.Join(append([]string{said}, lines...), "\n")
}
