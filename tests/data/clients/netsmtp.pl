# netsmtp.pl PORT FROM TO MESSAGE-FILE: Net::SMTP takes lines that end in LF, as Perl programs write them.
use strict; use warnings;
use Net::SMTP;
my ($port, $from, $to, $file) = @ARGV;
open(my $in, '<:raw', $file) or die $!;
my $smtp = Net::SMTP->new('127.0.0.1', Port => $port, Hello => 'perl.example') or die "connect: $@";
$smtp->mail($from) and $smtp->to($to) and $smtp->data() or die $smtp->message;
$smtp->datasend($_) while <$in>;
$smtp->dataend() or die $smtp->message;
print $smtp->message;
$smtp->quit;
