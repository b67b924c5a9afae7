      *> MAILER PORT FROM TO: a batch program's mail, by the C library's
      *> sockets, every line ended by LF alone, as DISPLAY would.
       IDENTIFICATION DIVISION.
       PROGRAM-ID. MAILER.
       DATA DIVISION.
       WORKING-STORAGE SECTION.
       01  SOCK             USAGE BINARY-INT.
       01  OUTCOME          USAGE BINARY-INT.
       01  WANTED-SIZE      USAGE BINARY-LONG.
       01  PORT-NUMBER      PIC 9(5).
       01  SENDER           PIC X(100).
       01  RECEIVER         PIC X(100).
       01  ADDRESS-BLOCK.
           05  FAMILY       USAGE BINARY-SHORT UNSIGNED VALUE 2.
           05  PORT-HIGH    USAGE BINARY-CHAR UNSIGNED.
           05  PORT-LOW     USAGE BINARY-CHAR UNSIGNED.
           05  HOST-ADDRESS PIC X(4) VALUE X"7F000001".
           05  FILLER       PIC X(8) VALUE LOW-VALUES.
       01  REPLY            PIC X(1024).
       01  LINE-OUT         PIC X(300).
       01  LINE-LENGTH      USAGE BINARY-LONG.
       01  WANTED-CODE      PIC X.
       PROCEDURE DIVISION.
       MAIN-PART.
           ACCEPT PORT-NUMBER FROM ARGUMENT-VALUE.
           ACCEPT SENDER FROM ARGUMENT-VALUE.
           ACCEPT RECEIVER FROM ARGUMENT-VALUE.
           DIVIDE PORT-NUMBER BY 256 GIVING PORT-HIGH
               REMAINDER PORT-LOW.
           CALL "socket" USING BY VALUE 2 BY VALUE 1 BY VALUE 0
               RETURNING SOCK.
           CALL "connect" USING BY VALUE SOCK
               BY REFERENCE ADDRESS-BLOCK BY VALUE 16
               RETURNING OUTCOME.
           IF OUTCOME NOT = 0
               DISPLAY "CANNOT CONNECT" STOP RUN RETURNING 1
           END-IF.
           MOVE "2" TO WANTED-CODE.
           PERFORM READ-REPLY.
           MOVE "HELO BATCH" TO LINE-OUT.
           PERFORM ASK.
           STRING "MAIL FROM:<" DELIMITED BY SIZE
               SENDER DELIMITED BY SPACE ">" DELIMITED BY SIZE
               INTO LINE-OUT.
           PERFORM ASK.
           STRING "RCPT TO:<" DELIMITED BY SIZE
               RECEIVER DELIMITED BY SPACE ">" DELIMITED BY SIZE
               INTO LINE-OUT.
           PERFORM ASK.
           MOVE "3" TO WANTED-CODE.
           MOVE "DATA" TO LINE-OUT.
           PERFORM ASK.
           STRING "From: " DELIMITED BY SIZE
               SENDER DELIMITED BY SPACE INTO LINE-OUT.
           PERFORM SAY.
           STRING "To: " DELIMITED BY SIZE
               RECEIVER DELIMITED BY SPACE INTO LINE-OUT.
           PERFORM SAY.
           MOVE "Subject: SETTLEMENT RUN" TO LINE-OUT.
           PERFORM SAY.
           MOVE "Date: Fri, 20 Nov 2026 09:43:01 +0000" TO LINE-OUT.
           PERFORM SAY.
           MOVE "Message-ID: <settlement.1@batch.example>"
               TO LINE-OUT.
           PERFORM SAY.
           MOVE "MIME-Version: 1.0" TO LINE-OUT.
           PERFORM SAY.
           MOVE SPACES TO LINE-OUT.
           PERFORM SAY.
           MOVE "RECORDS READ     0000142" TO LINE-OUT.
           PERFORM SAY.
           MOVE "RECORDS REJECTED 0000003" TO LINE-OUT.
           PERFORM SAY.
           MOVE "2" TO WANTED-CODE.
           MOVE "." TO LINE-OUT.
           PERFORM ASK.
           DISPLAY FUNCTION TRIM(REPLY).
           MOVE "QUIT" TO LINE-OUT.
           PERFORM ASK.
           CALL "close" USING BY VALUE SOCK.
           STOP RUN RETURNING 0.
       ASK.
           PERFORM SAY.
           PERFORM READ-REPLY.
       SAY.
           MOVE FUNCTION LENGTH(FUNCTION TRIM(LINE-OUT TRAILING))
               TO LINE-LENGTH.
           IF LINE-OUT = SPACES MOVE 0 TO LINE-LENGTH END-IF.
           ADD 1 TO LINE-LENGTH.
           MOVE X"0A" TO LINE-OUT(LINE-LENGTH:1).
           CALL "send" USING BY VALUE SOCK BY REFERENCE LINE-OUT
               BY VALUE LINE-LENGTH BY VALUE 0
               RETURNING OUTCOME.
           MOVE SPACES TO LINE-OUT.
       READ-REPLY.
           MOVE SPACES TO REPLY.
           CALL "recv" USING BY VALUE SOCK BY REFERENCE REPLY
               BY VALUE 1024 BY VALUE 0 RETURNING OUTCOME.
           IF OUTCOME < 1 OR REPLY(1:1) NOT = WANTED-CODE
               DISPLAY "REFUSED: " FUNCTION TRIM(REPLY)
               STOP RUN RETURNING 1
           END-IF.
